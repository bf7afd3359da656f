"""Counts the lines of every object that a loader compiles, over a whole session."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_bpf.coverage.blocks import Blocks
from pytest_bpf.coverage.counters import FLAGS
from pytest_bpf.coverage.evaluation import Build
from pytest_bpf.coverage.loaded_lines import loaded_lines
from pytest_bpf.coverage.recording import MapMemory, Recording
from pytest_bpf.coverage.values import merge
from pytest_bpf.errors import BpfError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_bpf.compile import CompiledObject
    from pytest_bpf.coverage.loaded_lines import Line
    from pytest_bpf.coverage.recording import Counting
    from pytest_bpf.coverage.values import FileLines
    from pytest_bpf.objects import Object

    CompileWith = Callable[[Sequence[str]], CompiledObject]
    """Compiles a source as it ships, with further flags."""


class Recorder:
    """Makes the builds that count, and adds up what they counted.

    An object that has no such build, or whose build the kernel refuses, is counted by its
    instructions. ``notes`` say which ones that were, and which are not counted at all, and why.
    """

    def __init__(self, *, apart: bool = False) -> None:
        """``apart`` tells builds of one source apart, by their defines and flags."""
        self._apart = apart
        self._labels: dict[str, str] = {}
        self.notes: dict[str, None] = {}
        self._reasons: dict[str, str] = {}
        self._builds: dict[str, Counting] = {}
        self._clang: dict[bytes, Build] = {}
        self._open: set[Recording] = set()
        self._taken: dict[str, list[int]] = {}
        self._totals: dict[str, list[int]] = {}
        self._loaded: dict[str, set[Line]] = {}

    def counting_build(
        self, source: Path, compile_with: CompileWith, label: str = ""
    ) -> CountingBuild | None:
        """Return the build of a source that counts; None, and a refusal, where there is none.

        ``label`` says what it is compiled with, besides what all sources are.
        """
        try:
            original = compile_with(FLAGS).object.read_bytes()
            build = self._clang.setdefault(original, Build(original))
            if not build.functions or not build.counters.count:
                raise UnavailableError("the compiler has put no counters into it")
        except BpfError as error:
            self.refuse(source, error)
            return None
        self._labels[build.digest] = label
        return CountingBuild(self, build, source)

    def refuse(self, source: Path, error: Exception) -> None:
        """Keep why a source has no build that counts."""
        self._reasons[str(source)] = str(error).splitlines()[0].removeprefix(f"{source}:")

    def files(self) -> list[FileLines]:
        """Return what ran of each source until now, of objects that were closed."""
        return merge(
            replace(file, build=self._labels.get(digest, "")) if self._apart else file
            for digest, counts in self._totals.items()
            for file in self._builds[digest].files(counts, self._loaded.get(digest))
        )

    def new_files(self) -> list[FileLines]:
        """Return what ran of each source since the last call, of objects that are open, too."""
        now = {digest: list(counts) for digest, counts in self._totals.items()}
        builds = dict(self._builds)
        for recording in self._open:
            build, live = recording.build, recording.counts()
            builds[build.digest] = build
            before = now.get(build.digest, [0] * len(live))
            now[build.digest] = [a + b for a, b in zip(before, live, strict=True)]
        files = []
        for digest, counts in now.items():
            taken = self._taken.get(digest, [0] * len(counts))
            new = [a - b for a, b in zip(counts, taken, strict=True)]
            files += builds[digest].files(new) if any(new) else []
        self._taken = now
        return merge(files)

    def start(self, obj: Object, build: Build) -> None:
        """Count the lines of an object that was loaded from ``build``."""
        recording = Recording(obj, build, MapMemory(obj, build), self._add)
        self._open.add(recording)
        lines = loaded_lines(obj.programs.values(), build.original)
        self._loaded.setdefault(build.digest, set()).update(lines)

    def count_instructions(self, obj: Object) -> None:
        """Count the lines of an object that was loaded as it ships, by its instructions."""
        why = self._reasons.get(str(obj.path), "it was not compiled here")
        try:
            blocks = Blocks(obj)
        except (BpfError, ValueError) as error:
            reason = str(error).splitlines()[0]
            self.notes[f"{obj.path}: its lines are not counted: {why}; {reason}"] = None
            return
        self._labels[blocks.digest] = "" if obj.path.suffix == ".c" else obj.path.name
        self._open.add(Recording(obj, blocks, blocks, self._add))
        text = f"{obj.path}: its lines are counted by instructions, approximately: {why}"
        self.notes[text] = None
        self.notes.update(dict.fromkeys(blocks.notes))

    def _add(self, recording: Recording, counts: Sequence[int]) -> None:
        self._open.discard(recording)
        build = recording.build
        self._builds.setdefault(build.digest, build)
        totals = self._totals.setdefault(build.digest, [0] * len(counts))
        self._totals[build.digest] = [a + b for a, b in zip(totals, counts, strict=True)]


class CountingBuild:
    """The build that counts, which is loaded in the place of the one that ships."""

    def __init__(self, recorder: Recorder, build: Build, source: Path) -> None:
        self._recorder = recorder
        self._build = build
        self._source = source
        self.content = build.counters.content

    def loaded(self, obj: Object) -> None:
        """Count the lines of an object from here on."""
        self._recorder.start(obj, self._build)

    def refused(self, error: Exception) -> None:
        """Keep why it was not loaded, when the one that ships was."""
        self._recorder.refuse(self._source, error)

"""Lines by counters between instructions: of any object, and approximate after optimisation.

Each program is loaded once more with a counter in each block of instructions, and takes the place
of the first behind the same descriptor. A line counts as often as the block that ran most often of
those with its instructions; code that the compiler moved counts where it is now.
"""

from __future__ import annotations

import os
from array import array
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.coverage.values import FileLines
from pytest_bpf.errors import BpfError, LoadError
from pytest_bpf.objects.programs.origins import source_lines
from pytest_bpf.objects.programs.twin import Twin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pytest_bpf.coverage.loaded_lines import Line
    from pytest_bpf.kernel.programs.flow import Flow
    from pytest_bpf.objects import Object, Program

NO_TWIN = ("struct_ops",)
"""Kinds of programs that others hold by themselves, so that no other can take their place."""


class Blocks:
    """The programs of an object with counters: ``notes`` name those that have none, and why.

    Raises `LoadError` when no program can have some.
    """

    def __init__(self, obj: Object) -> None:
        self.notes: list[str] = []
        self._folder = obj.path.parent
        self._places: list[tuple[int, list[tuple[Line, int]]]] = []
        self._twins: list[Twin] = []
        with ExitStack() as failure:
            failure.callback(self.close)
            for program in obj.programs.values():
                self._count(obj, program)
            if not self._twins:
                raise LoadError(self.notes[0] if self.notes else "it has no program")
            failure.pop_all()
        self.notes += self._newer(obj.path)
        names = ",".join(obj.programs)
        self.digest = sha256(obj.content + names.encode()).hexdigest()

    def counts(self) -> array[int]:
        """Return the counters of all programs, one after the other."""
        return array("Q", (count for twin in self._twins for count in twin.counts()))

    def files(
        self,
        counts: Sequence[int],
        loaded: Collection[Line] | None = None,  # noqa: ARG002 - of clang's build
    ) -> list[FileLines]:
        """Return what the counters say of each source."""
        by_path: dict[str, dict[int, int]] = {}
        at = 0
        for size, places in self._places:
            for (path, line), block in places:
                lines = by_path.setdefault(path, {})
                lines[line] = max(lines.get(line, 0), counts[at + block])
            at += size
        return [
            FileLines(path, dict(sorted(lines.items())), approximate=True)
            for path, lines in by_path.items()
        ]

    def close(self) -> None:
        """Let the counters go; the programs go with their object."""
        for twin in self._twins:
            twin.close()

    def _count(self, obj: Object, program: Program) -> None:
        try:
            if program.type in NO_TWIN:
                raise LoadError(f"program {program.name!r} is of {program.type}, which holds it")
            twin = Twin(program, "count")
        except (BpfError, ValueError) as error:
            self.notes.append(f"{obj.path}: {str(error).splitlines()[0]}")
            return
        places = list(self._lines(obj.content, program.name, twin.build.flow))
        if not places:
            twin.close()
            self.notes.append(
                f"{obj.path}: program {program.name!r} has no line information: compile it with -g"
            )
            return
        os.dup2(twin.fd, program.fd)
        self._places.append((len(twin.build.places), places))
        self._twins.append(twin)

    def _newer(self, path: Path) -> Iterator[str]:
        """Yield what there is to say of sources that were changed after the object was made."""
        if path.suffix == ".c" or not path.exists():
            return
        sources = {name for _, places in self._places for (name, _), _ in places}
        for source in sorted(map(Path, sources)):
            if source.exists() and source.stat().st_mtime > path.stat().st_mtime:
                yield f"{source} is newer than {path}: its lines may be others, compile it again"

    def _lines(self, content: bytes, name: str, flow: Flow) -> Iterator[tuple[Line, int]]:
        """Yield each line of the program with a block that has an instruction of it."""
        known = source_lines(content, name, flow)
        line: Line | None = None
        seen: set[tuple[Line, int]] = set()
        for at in range(len(flow.instructions)):
            if at in flow.functions:
                line = None
            if at in known:
                line = (self._path(known[at].file), known[at].line)
            if line is not None and line[1] and (line, flow.block_of(at)) not in seen:
                seen.add((line, flow.block_of(at)))
                yield line, flow.block_of(at)

    def _path(self, name: str) -> str:
        """Return where a source is: names may start at the object, or at the current folder."""
        beside = self._folder / name
        return os.path.normpath(beside if beside.exists() else Path(name).absolute())

"""``python -m benchmarks.corpus FOLDER...``, as root: compare us with clang and libbpf alone.

Each folder has BPF sources of others. A line is printed for each difference: a source that clang
compiles and we do not, an object or a program that libbpf loads and we do not, a buffer whose
events have no type. The end is a summary in Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.corpus import libbpf_alone
from benchmarks.corpus.plain import Project, compile_by_pipeline, compile_plain, pipeline
from pytest_bpf.compile import BuildCommand, CompileOptions, Compiler, find_compiler
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.loader import Loader
from pytest_bpf.objects.events.event_types import event_types
from pytest_bpf.objects.events.inference import inferred_types
from pytest_bpf.objects.events.writes import find_writes
from pytest_bpf.objects.types import Types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_bpf.objects.loading.open_object import OpenObject

BUFFERS = frozenset({"ringbuf", "perf_event_array"})


@dataclass
class Tally:
    """What there is of each kind, and the lines that say where we differ."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def differ(self, source: Path, what: str) -> None:
        """Note and print one difference."""
        self.differences.append(f"{source}: {what}")
        print(self.differences[-1], flush=True)


def main() -> None:
    options = _parser().parse_args()
    compiler = find_compiler(options.cc)
    options.keep.mkdir(parents=True, exist_ok=True)
    tally = Tally()
    for folder in options.folders:
        project = Project(
            folder.absolute(), tuple(options.include), tuple(options.cflag), tuple(options.kernel)
        )
        for source in project.sources():
            if all(word not in str(source) for word in options.skip):
                compare(tally, project, source, compiler, options.keep)
    print(summary(tally, f"{compiler}, libbpf {libbpf.version()}"))
    sys.exit(1 if tally.differences else 0)


def compare(tally: Tally, project: Project, source: Path, compiler: Compiler, kept: Path) -> None:
    """Compile and load one source both ways."""
    tally.counts["sources"] += 1
    plain, _ = compile_plain(compiler, project, source, kept)
    options = CompileOptions(
        compiler, cflags=project.flags, include_dirs=(source.parent, *project.include_dirs)
    )
    if plain is None and project.kernel:
        plain, _ = compile_by_pipeline(project, source, kept)
        if plain is not None:
            tally.counts["compiled by clang and llc"] += 1
            target = kept / f"ours-{plain.name}"
            options = CompileOptions(build=BuildCommand(pipeline(project), str(target), kept))
    tally.counts["clang compiles"] += plain is not None
    with Loader(compile_options=lambda _: options, on_compile=lambda _: None) as loader:
        try:
            compiled = loader.compile(source).object
        except BpfError as error:
            if plain is not None:
                tally.differ(source, f"is not compiled here: {_first(error)}")
            return
    tally.counts["we compile"] += 1
    _compare_events(tally, source, compiled, options)
    _compare_loads(tally, source, plain or compiled, options)


def _compare_loads(tally: Tally, source: Path, plain: Path, options: CompileOptions) -> None:
    answers = alone(plain)
    if answers["whole"] == "crash":
        tally.counts["libbpf crashes"] += 1
    ways: Mapping[str, Path] = {"from the source": source, "from the object": plain}
    theirs = {None: answers["whole"], **answers["programs"]}
    for program, code in theirs.items():
        kind = "programs" if program else "objects"
        tally.counts[kind] += 1
        tally.counts[f"{kind}: libbpf loads"] += code == 0
        for way, path in ways.items():
            error = _load(path, program, options)
            tally.counts[f"{kind}: we load {way}"] += error is None
            if error is not None and code == 0:
                what = f"program {program!r}" if program else "the object"
                tally.differ(source, f"{what} is not loaded {way}: {_first(error)}")


def _load(path: Path, program: str | None, options: CompileOptions) -> BpfError | None:
    chosen: dict[str, Any] = {"programs": [program]} if program else {}
    with Loader(compile_options=lambda _: options, on_compile=lambda _: None) as loader:
        try:
            loader.load(path, **chosen)
        except BpfError as error:
            return error
    return None


def alone(path: Path) -> dict[str, Any]:
    """Return what libbpf says to an object without us."""
    library = libbpf.library()._name  # noqa: SLF001 (ctypes has no other way)
    command = [sys.executable, libbpf_alone.__file__, library, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _compare_events(tally: Tally, source: Path, compiled: Path, options: CompileOptions) -> None:
    with Loader(compile_options=lambda _: options, on_compile=lambda _: None) as loader:
        try:
            opened = loader.open(source)
        except BpfError:
            return
        for name, what in _events(opened, compiled.read_bytes()):
            tally.counts["buffers"] += 1
            tally.counts[f"buffers: {what}"] += 1
            if what == "bytes":
                tally.differ(source, f"the events of {name!r} have no type")


def _events(opened: OpenObject, content: bytes) -> Iterator[tuple[str, str]]:
    """Yield each buffer that programs write to, and what its events are."""
    types = Types(opened.handle.btf, content, opened.path.name)
    writes = {write.map for write in find_writes(content)}
    for name, entry in opened.maps.items():
        if entry.type not in BUFFERS:
            continue
        if name not in writes:
            yield name, "not written by name"
            continue
        declared = entry.value
        chosen = event_types(types, None, None, name=name, kind=entry.type, declared=declared)
        if chosen.one is not None:
            yield name, "typed"
        elif len(inferred_types(types, name)) > 1:
            yield name, "of several types"
        else:
            yield name, "bytes"


def summary(tally: Tally, what: str) -> str:
    """Return a table of all counts."""
    rows = [f"| {name} | {count} |" for name, count in tally.counts.items()]
    rows.append(f"| differences | {len(tally.differences)} |")
    return "\n".join(["", f"| {what} | |", "| --- | ---: |", *rows])


def _first(error: BpfError) -> str:
    return str(error).splitlines()[0][:300]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--include", action="append", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--cflag", action="append", default=[], metavar="FLAG")
    parser.add_argument("--cc", help="the compiler of both sides; the newest without it")
    parser.add_argument("--skip", action="append", default=[], help="a part of paths to leave out")
    parser.add_argument(
        "--kernel",
        nargs=2,
        type=Path,
        default=[],
        metavar=("COMMON", "BUILT"),
        help="unpacked kernel headers for clang | llc",
    )
    parser.add_argument("--keep", type=Path, default=Path("build/corpus"), metavar="FOLDER")
    return parser


if __name__ == "__main__":
    main()

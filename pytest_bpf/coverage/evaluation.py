"""From an object's counters to the lines, branches and functions of its sources."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import md5, sha256
from typing import TYPE_CHECKING

from pytest_bpf.coverage.counters import Counters, with_counters
from pytest_bpf.coverage.elf import Elf
from pytest_bpf.coverage.loaded_lines import compiled_lines
from pytest_bpf.coverage.mapping import BRANCH, Function, Reader, functions
from pytest_bpf.coverage.regions import CountedRegion, line_counts
from pytest_bpf.coverage.values import Branch, FileLines, FunctionLines, merge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pytest_bpf.coverage.loaded_lines import Line
    from pytest_bpf.coverage.mapping import Region


@dataclass(frozen=True)
class Build:
    """An object that counts: what clang made with `counters.FLAGS`."""

    original: bytes

    @cached_property
    def counters(self) -> Counters:
        """The object for libbpf, and where its counters are."""
        return with_counters(self.original)

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """What clang says about its functions."""
        return functions(self.original)

    @cached_property
    def compiled(self) -> frozenset[Line]:
        """The lines that it has instructions of."""
        return compiled_lines(self.original)

    @cached_property
    def digest(self) -> str:
        """What tells it from other builds."""
        return sha256(self.original).hexdigest()

    @cached_property
    def names(self) -> dict[int, str]:
        """The functions' names by clang's numbers."""
        elf = Elf(self.original)
        names = (n for index in elf.named("__llvm_prf_names") for n in _names(elf.raw(index)))
        return {_number(name): name.decode(errors="replace") for name in names}

    def files(
        self, counts: Sequence[int], loaded: Collection[Line] | None = None
    ) -> list[FileLines]:
        """Return what the counters say of each source.

        ``loaded`` are the lines of the programs in the kernel: those that only the object has are
        dead, in functions that the programs have.
        """
        files: dict[str, _File] = defaultdict(_File)
        for function in self.functions:
            start = self.counters.starts.get(function.number)
            own = [] if start is None else counts[start:]
            name = self.names.get(function.number, "?").replace(";", ":").rpartition(":")[2]
            for region in function.regions:
                file = files[function.files[region.file]]
                file.add(function, region, own)
            first = function.regions[0]
            files[function.files[first.file]].functions.append(
                FunctionLines(
                    name, first.start[0], first.end[0], function.count(first.counter, own)
                )
            )
        merged = merge(file.lines(path) for path, file in files.items())
        if loaded is None:
            return merged
        return [replace(file, dead=self._dead(file, loaded)) for file in merged]

    def _dead(self, file: FileLines, loaded: Collection[Line]) -> frozenset[int]:
        compiled = {line for path, line in self.compiled if path == file.path}
        alive = {line for path, line in loaded if path == file.path}
        return frozenset(
            line
            for f in file.functions
            if any(f.line <= line <= f.end_line for line in alive)
            for line in compiled - alive
            if f.line <= line <= f.end_line and file.lines.get(line) == 0
        )


class _File:
    """The regions of one source, as they are put together."""

    def __init__(self) -> None:
        self.regions: list[CountedRegion] = []
        self.branches: dict[tuple[int, ...], tuple[int, int]] = {}
        self.functions: list[FunctionLines] = []

    def add(self, function: Function, region: Region, counts: Sequence[int]) -> None:
        count = function.count(region.counter, counts)
        if region.kind != BRANCH:
            self.regions.append(CountedRegion(region.kind, region.start, region.end, count))
        elif region.counter or region.false_counter:  # else it is a constant
            place = (*region.start, *region.end)
            true, false = self.branches.get(place, (0, 0))
            other = function.count(region.false_counter, counts)
            self.branches[place] = (true + count, false + other)

    def lines(self, path: str) -> FileLines:
        counts = line_counts(self.regions)
        branches = tuple(sorted(Branch(*p, *c) for p, c in self.branches.items()))  # type: ignore[call-arg]
        return FileLines(path, counts, branches, tuple(self.functions))


def _names(section: bytes) -> Iterator[bytes]:
    """Yield the names of functions; each unit has the size of its text, plain and compressed."""
    reader = Reader(section)
    while not reader.ended:
        size, compressed = reader.number(), reader.number()
        if not size:
            continue  # padding
        text = zlib.decompress(reader.bytes(compressed)) if compressed else reader.bytes(size)
        yield from text.split(b"\x01")


def _number(name: bytes) -> int:
    return int.from_bytes(md5(name, usedforsecurity=False).digest()[:8], "little")

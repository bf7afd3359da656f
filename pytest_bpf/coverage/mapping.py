"""Clang's coverage mapping: which counter counts which region of a source.

The format is LLVM's ``docs/CoverageMappingFormat.rst``, from version 5 (clang 11) on.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.coverage.elf import Elf
from pytest_bpf.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CODE, EXPANSION, SKIPPED, GAP, BRANCH = range(5)
"""Kinds of regions."""

VERSIONS = (4, 5, 6)
"""The format's versions 5 to 7, as they are written."""

FUNCTION = struct.Struct("=QIQQ")
GAP_BIT = 1 << 31
LAST_COLUMN = 2**32 - 1

Place = tuple[int, int]
"""A line and a column, both from 1."""


@dataclass(frozen=True)
class Region:
    """A piece of source from ``start`` up to ``end``: its kind, its file, and what counts it.

    ``counter`` is the reference of a counter; of a branch it counts how often the condition was
    true, and ``false_counter`` how often it was false. ``expanded`` is the file of a macro's or
    header's text that stands here.
    """

    kind: int
    file: int
    start: Place
    end: Place
    counter: int = 0
    false_counter: int = 0
    expanded: int = 0


@dataclass(frozen=True)
class Function:
    """A function: clang's number of it, its files (paths), its regions and its expressions.

    A counter's reference has its kind in two bits (0 nothing, 1 counter, 2 difference, 3 sum) and
    the index of the counter or expression above these.
    """

    number: int
    files: tuple[str, ...]
    regions: tuple[Region, ...]
    expressions: tuple[tuple[int, int], ...]

    def count(self, reference: int, counts: Sequence[int]) -> int:
        """Return what a reference counted; ``counts`` are this function's counters."""
        return max(0, self._evaluate(reference, counts))

    def _evaluate(self, reference: int, counts: Sequence[int]) -> int:
        kind, index = reference & 3, reference >> 2
        if kind == 0:
            return 0
        if kind == 1:
            return counts[index] if index < len(counts) else 0
        left, right = (self._evaluate(part, counts) for part in self.expressions[index])
        return left - right if kind == 2 else left + right


def functions(content: bytes) -> tuple[Function, ...]:
    """Return what an object says of its functions; nothing when it has no mapping.

    Raises `UnavailableError` for a version of the format that is not known.
    """
    names: dict[int, tuple[str, ...]] = {}
    elf = Elf(content)
    for index in elf.named("__llvm_covmap"):
        names.update(_names(elf.raw(index)))
    return tuple(
        function
        for index in elf.named("__llvm_covfun")
        for function in _functions(elf.raw(index), names)
    )


def _names(section: bytes) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the files' names of each translation unit, by the hash that functions refer to."""
    at = 0
    while at + 16 <= len(section):
        _, size, _, version = struct.unpack_from("=4I", section, at)
        if version not in VERSIONS:
            raise UnavailableError(
                f"this compiler writes version {version + 1} of the coverage mapping, and versions "
                f"{VERSIONS[0] + 1} to {VERSIONS[-1] + 1} are known: use another clang (--bpf-cc)"
            )
        raw = section[at + 16 : at + 16 + size]
        yield (
            int.from_bytes(md5(raw, usedforsecurity=False).digest()[:8], "little"),
            _paths(Reader(raw), version),
        )
        at += -(-(16 + size) // 8) * 8


def _paths(reader: Reader, version: int) -> tuple[str, ...]:
    count, size, compressed = reader.number(), reader.number(), reader.number()
    if compressed:
        reader = Reader(zlib.decompress(reader.bytes(compressed), bufsize=size))
    names = [reader.bytes(reader.number()).decode(errors="surrogateescape") for _ in range(count)]
    if version >= 5:  # the first one is the folder that the compiler ran in
        names = [names[0], *(str(Path(names[0], name)) for name in names[1:])]
    return tuple(map(os.path.normpath, names))


def _functions(section: bytes, names: dict[int, tuple[str, ...]]) -> Iterator[Function]:
    at = 0
    while at + FUNCTION.size <= len(section):
        number, size, _, files = FUNCTION.unpack_from(section, at)
        at += FUNCTION.size
        if files in names:
            yield _function(number, Reader(section[at : at + size]), names[files])
        at = -(-(at + size) // 8) * 8


def _function(number: int, reader: Reader, names: tuple[str, ...]) -> Function:
    files = tuple(names[reader.number()] for _ in range(reader.number()))
    expressions = tuple((reader.number(), reader.number()) for _ in range(reader.number()))
    regions: list[Region] = []
    for file in range(len(files)):
        line = 0
        for _ in range(reader.number()):
            region = _region(reader, file, line)
            line = region.start[0]
            regions.append(region)
    return Function(number, files, tuple(_with_expansions(regions, len(files))), expressions)


def _region(reader: Reader, file: int, line: int) -> Region:
    head = reader.number()
    kind, counter, false_counter, expanded = CODE, 0, 0, 0
    if head & 3:
        counter = head
    elif head & 4:
        kind, expanded = EXPANSION, head >> 3
    else:
        kind = head >> 3
        if kind == BRANCH:
            counter, false_counter = reader.number(), reader.number()
        elif kind not in {CODE, SKIPPED}:
            raise UnavailableError(
                f"this compiler writes regions of kind {kind}, which are not known here; "
                "use another clang (--bpf-cc)"
            )
    start = (line + reader.number(), reader.number())
    lines, last = reader.number(), reader.number()
    if last & GAP_BIT:
        kind, last = GAP, last & ~GAP_BIT
    if not start[1] and not last:
        start, last = (start[0], 1), LAST_COLUMN
    return Region(kind, file, start, (start[0] + lines, last), counter, false_counter, expanded)


def _with_expansions(regions: list[Region], files: int) -> list[Region]:
    """Return the regions, what is expanded counted as the first region of its file."""
    for _ in range(files - 1):  # an expansion may stand in another one
        first: dict[int, Region] = {}
        for region in regions:
            first.setdefault(region.file, region)
        regions = [
            replace(r, counter=first[r.expanded].counter)
            if r.kind == EXPANSION and r.expanded in first
            else r
            for r in regions
        ]
    return regions


class Reader:
    """Numbers and bytes, one after the other."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def number(self) -> int:
        """Return the next number (ULEB128)."""
        value = shift = 0
        while True:
            byte = self._raw[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        return self._at >= len(self._raw)

    def bytes(self, size: int) -> bytes:
        """Return the next bytes."""
        self._at += size
        return self._raw[self._at - size : self._at]

"""The counters that clang puts into an object, made one map that libbpf loads.

``-fprofile-instr-generate`` gives each function a section ``__llvm_prf_cnts`` of its own, which
libbpf does not load. They become one section ``.data.lines``, and so one map of global variables.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.compile.compilers import TARGET
from pytest_bpf.coverage.elf import Elf, Symbol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FLAGS = (
    *("-fprofile-instr-generate", "-fcoverage-mapping", "-fprofile-update=atomic"),
    *(f"--target={TARGET}-unknown-linux", "-fno-pic", "-fno-pie"),
)
"""What makes clang count, after the flags of the shipped build.

The triple's ``linux`` keeps clang from asking for its runtime library, and clang 14 from crashing;
without ``-fno-pic`` it would define macros that the shipped build does not see.
"""

MAP = ".data.lines"
"""The section of all counters, and libbpf's name of the map."""

COUNTERS, RECORDS = "__llvm_prf_cnts", "__llvm_prf_data"
PROGBITS, WRITE_ALLOC, STT_SECTION = 1, 3, 3


@dataclass(frozen=True)
class Counters:
    """An object that counts: its ``content`` for libbpf, and where the counters of functions are.

    ``starts`` is, by clang's number of a function, the index of its first counter; ``count`` is how
    many counters there are.
    """

    content: bytes
    starts: Mapping[int, int]
    count: int


def with_counters(content: bytes) -> Counters:
    """Return an object that clang made with `FLAGS`, with all of its counters in one section."""
    elf = Elf(content)
    bases: dict[int, int] = {}
    size = 0
    for index in elf.named(COUNTERS):
        bases[index] = size
        size += elf.sections[index].size
    if not bases:
        return Counters(content, {}, 0)
    first = min(bases)
    sections = list(elf.sections)
    sections[first] = sections[first]._replace(
        name=len(elf.strings), type=PROGBITS, flags=WRITE_ALLOC, offset=elf.end, size=size
    )
    symbols = [_moved(symbol, bases, first) for symbol in elf.symbols]
    strings = elf.strings + MAP.encode() + b"\0"
    rewritten = elf.rewritten(sections, symbols, strings, bytes(size))
    return Counters(rewritten, dict(_starts(elf, bases)), size // 8)


def _starts(elf: Elf, bases: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield clang's number of each function, and the index of its first counter.

    A function's record begins with its number, and has a relocation to its counters at 16.
    """
    for index in elf.named(RECORDS):
        number = struct.unpack_from("=Q", elf.raw(index))[0]
        for offset, symbol in elf.relocations(index):
            if offset == 16 and symbol.section in bases:
                yield number, (bases[symbol.section] + symbol.value) // 8


def _moved(symbol: Symbol, bases: Mapping[int, int], first: int) -> Symbol:
    """Return a symbol where its counters are now; a section begins there no longer."""
    if symbol.section not in bases:
        return symbol
    info = symbol.info & 0xF0 if symbol.info & 0xF == STT_SECTION else symbol.info
    return symbol._replace(info=info, section=first, value=symbol.value + bases[symbol.section])

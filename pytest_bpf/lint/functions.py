"""The functions of an object file: their instructions, what these refer to, and source lines."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs.flow import (
    CALL,
    EXIT,
    LDDW,
    Insn,
    is_conditional,
    is_jump,
    jump_target,
    unpack,
)
from pytest_bpf.objects import elf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_bpf.objects.elf import SourceLine, Symbol

SIZE = 8
"""Bytes of an instruction."""


@dataclass(frozen=True)
class Function:
    """One function: its ``instructions``, and by instruction the symbol that it refers to.

    ``lines`` are the source lines by their first instruction. ``local`` is that of a ``static``
    function, ``entry`` that of a program's own.
    """

    name: str
    section: str
    instructions: tuple[Insn, ...]
    symbols: Mapping[int, Symbol]
    lines: Mapping[int, SourceLine]
    local: bool
    entry: bool

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(self.lines)

    def place(self, at: int) -> tuple[str, int]:
        """Return the file and line that an instruction was made of; line 0 without line info."""
        index = bisect_right(self._starts, at) - 1
        if index < 0:
            return "", 0
        line = self.lines[self._starts[index]]
        return line.file, line.line

    @cached_property
    def successors(self) -> list[tuple[int, ...]]:
        """What may run after each instruction; conditional jumps have the next one first."""
        after: list[tuple[int, ...]] = []
        count = len(self.instructions)
        for at, insn in enumerate(self.instructions):
            if insn.code == EXIT:
                after.append(())
            elif is_jump(insn):
                other = (at + 1,) if is_conditional(insn) else ()
                after.append((*other, jump_target(at, insn)))
            else:
                after.append((at + 2,) if insn.code == LDDW else (at + 1,))
        return [tuple(to for to in each if 0 <= to < count) for each in after]

    @cached_property
    def looped(self) -> frozenset[int]:
        """The instructions that can run more than once in a run: those on a circle."""
        return frozenset(at for at in range(len(self.instructions)) if at in self.reached(at))

    @cached_property
    def _reached(self) -> dict[int, frozenset[int]]:
        return {}

    def reached(self, start: int) -> frozenset[int]:
        """Return the instructions that can run after ``start``."""
        if start in self._reached:
            return self._reached[start]
        seen: set[int] = set()
        waiting = list(self.successors[start])
        while waiting:
            at = waiting.pop()
            if at not in seen:
                seen.add(at)
                waiting.extend(self.successors[at])
        self._reached[start] = frozenset(seen)
        return self._reached[start]

    def helper_calls(self) -> Iterator[tuple[int, int]]:
        """Yield the instructions that call a helper, and the number of that helper."""
        for at, insn in enumerate(self.instructions):
            if insn.code == CALL and insn.of == 0 and at not in self.symbols:
                yield at, insn.value

    def calls(self) -> Iterator[tuple[int, str]]:
        """Yield the instructions that call a function of the object, and its name."""
        for at, insn in enumerate(self.instructions):
            if insn.code == CALL and at in self.symbols:
                yield at, self.symbols[at].name


def functions(content: bytes, programs: Sequence[str]) -> list[Function]:
    """Return the functions of an object; ``programs`` are the names of those that are programs."""
    symbols = elf.symbols(content)
    sections = elf.sections(content)
    lines: dict[str, dict[int, SourceLine]] = defaultdict(dict)
    for line in elf.source_lines(content):
        lines[line.section][line.start] = line
    every = [symbol for symbol in symbols if symbol.function and symbol.size]
    by_place = {(symbol.section, symbol.start): symbol for symbol in every}
    relocations = {
        section: elf.relocations(content, section) for section in {each.section for each in every}
    }
    result = []
    for symbol in every:
        code = sections.get(symbol.section, b"")[symbol.start : symbol.start + symbol.size]
        first = symbol.start // SIZE
        instructions = tuple(unpack(code[: len(code) // SIZE * SIZE]))
        references = {}
        for offset, index in relocations[symbol.section].items():
            at = offset // SIZE - first
            if 0 <= at < len(instructions) and index < len(symbols):
                references[at] = _target(symbols[index], instructions[at], by_place)
        for at, insn in enumerate(instructions):  # calls within a section have no relocation
            start = (first + at + 1 + insn.value) * SIZE
            callee = by_place.get((symbol.section, start))
            if callee and insn.code == CALL and insn.of == 1 and at not in references:
                references[at] = callee
        own = {
            start - first: line
            for start, line in lines[symbol.section].items()
            if first <= start < first + len(instructions)
        }
        result.append(
            Function(
                symbol.name,
                symbol.section,
                instructions,
                references,
                own,
                symbol.local,
                symbol.name in programs,
            )
        )
    return result


def _target(symbol: Symbol, insn: Insn, by_place: Mapping[tuple[str, int], Symbol]) -> Symbol:
    """Return the function that a call by section and offset means; other symbols as they are."""
    if insn.code == CALL and not symbol.function:
        return by_place.get((symbol.section, symbol.start + (insn.value + 1) * SIZE), symbol)
    return symbol

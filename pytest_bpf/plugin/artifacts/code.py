"""What a program's instructions tell without running it: calls, bounds, tail calls."""

from __future__ import annotations

import os
import struct
from functools import cache
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.objects.elf import relocations, sections, source_lines, symbols
from pytest_bpf.plugin.artifacts.evidence import Bound, Call, Code, TailCall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects.elf import SourceLine

JMP, JMP32, CALL, EXIT, TAIL_CALL = 5, 6, 0x85, 0x95, 12
END = (0xD4, 0xDC, 0xD7)
"""Instructions that swap bytes (``BPF_END``; of 16 bits and more)."""

MOVE_IMMEDIATE = (0xB4, 0xB7)
"""``w = imm`` and ``r = imm``."""

NEAR = 8
"""Instructions before a tail call among which its index is looked for."""


def code_of(content: bytes, name: str, section: str) -> Code:
    """Return what the instructions of a function in an object file tell.

    Those of functions of the same file that it calls are not among them.
    """
    raw = sections(content).get(section, b"")
    table = symbols(content)
    symbol = next(
        (s for s in table if s.function and s.name == name and s.section == section), None
    )
    if symbol is None:
        return Code()
    lines = _Lines(content, section)
    relocated = {at: table[n].name for at, n in relocations(content, section).items()}
    calls, bounds, tails, swaps = [], [], [], False
    instructions = list(_instructions(raw, symbol.start, symbol.start + symbol.size))
    for position, (at, opcode, registers, immediate) in enumerate(instructions):
        kind = opcode & 7
        if opcode == CALL and registers >> 4 == 0:
            calls.append(Call(_helper(immediate), *lines.at(at)))
            if immediate == TAIL_CALL:
                before = instructions[max(0, position - NEAR) : position]
                tails.append(_tail_call(before, relocated, lines.at(at)[0]))
        elif opcode in END and immediate >= 16:
            swaps = True
        elif kind in {JMP, JMP32} and opcode & 8 == 0 and opcode not in {CALL, EXIT, 0x05, 0x06}:
            bounds.append(Bound(immediate, *lines.at(at)))
    return Code(tuple(calls), tuple(bounds), tuple(tails), swaps)


def _instructions(raw: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield offset, opcode, registers and immediate; one of 64 bits once."""
    at = start
    while at + 8 <= min(end, len(raw)):
        opcode, registers, _, immediate = struct.unpack_from("=BBhi", raw, at)
        yield at, opcode, registers, immediate
        at += 16 if opcode == 0x18 else 8


def _tail_call(
    before: list[tuple[int, int, int, int]], relocated: dict[int, str], place: str
) -> TailCall:
    index, name = None, ""
    for at, opcode, registers, immediate in before:
        if registers & 15 == 3:
            index = immediate if opcode in MOVE_IMMEDIATE else None
        if opcode == 0x18 and registers & 15 == 2:
            name = relocated.get(at, "")
    return TailCall(name, index, place)


class _Lines:
    """The lines of C of one section, by the offset of an instruction."""

    def __init__(self, content: bytes, section: str) -> None:
        lines = (line for line in source_lines(content) if line.section == section and line.line)
        self._lines: list[SourceLine] = sorted(lines, key=lambda line: line.start)

    def at(self, offset: int) -> tuple[str, str]:
        """Return ``"count.bpf.c:12"`` and the text of that line; empty where nobody knows."""
        before = [line for line in self._lines if line.start <= offset // 8]
        if not before:
            return "", ""
        return f"{os.path.basename(before[-1].file)}:{before[-1].line}", before[-1].text  # noqa: PTH119 (a name from BTF)


def _helper(number: int) -> str:
    return _helpers().get(number, f"helper {number}")


@cache
def _helpers() -> dict[int, str]:
    from pytest_bpf.kernel.features.helpers import helper_ids

    try:
        return {number: name for name, number in helper_ids().items()}
    except UnavailableError:
        return {}

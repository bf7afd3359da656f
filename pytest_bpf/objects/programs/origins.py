"""Where a loaded program's instructions come from: sections, functions and lines of its object.

libbpf puts the functions that a program calls behind it. Which these are follows from the calls:
each goes somewhere in the program, and somewhere in the object file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.kernel.programs.flow import CALL, callee, unpack
from pytest_bpf.objects import elf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_bpf.kernel.programs.flow import Flow, Insn
    from pytest_bpf.objects.elf import SourceLine


class InstructionPlace(NamedTuple):
    """An instruction of an object file: its section, and its number there."""

    section: str
    at: int


class ExtRecord(NamedTuple):
    """A record of ``.BTF.ext``: the place that it belongs to, and the rest of its bytes."""

    place: InstructionPlace
    rest: bytes


@dataclass(frozen=True)
class Origins:
    """Where a program comes from: ``functions`` has the place of each by its start in the program.

    ``func_info`` and ``line_info`` are the records of the object that belong to it, by the
    instruction of the program.
    """

    functions: Mapping[int, InstructionPlace]
    func_info: Mapping[int, bytes]
    line_info: Mapping[int, bytes]


def origins(content: bytes, name: str, program: Flow) -> Origins | None:
    """Return where a program of an object comes from; None where the object does not tell."""
    functions = _functions(content, name, program)
    if functions is None:
        return None
    funcs, lines = (list(_records(content, kind)) for kind in (0, 1))
    return Origins(
        functions, _inside(program, functions, funcs), _inside(program, functions, lines)
    )


def source_lines(content: bytes, name: str, program: Flow) -> dict[int, SourceLine]:
    """Return by instruction the source line that it, and those behind it, were made of.

    Empty where the object does not tell.
    """
    functions = _functions(content, name, program)
    if functions is None:
        return {}
    ends = dict(
        zip(program.functions, [*program.functions[1:], len(program.instructions)], strict=True)
    )
    result = {}
    for line in elf.source_lines(content):
        for start, (section, first) in functions.items():
            if line.section == section and first <= line.start < first + ends[start] - start:
                result[start + line.start - first] = line
    return dict(sorted(result.items()))


def _functions(content: bytes, name: str, program: Flow) -> dict[int, InstructionPlace] | None:
    table = elf.symbols(content) if content else []
    own = next((s for s in table if s.function and s.name == name), None)
    if own is None:
        return None
    sections = elf.sections(content)
    code: dict[str, list[Insn]] = {}
    relocations: dict[str, dict[int, int]] = {}
    places = {0: InstructionPlace(own.section, own.start // 8)}
    waiting = [0]
    ends = [*program.functions[1:], len(program.instructions)]
    while waiting:
        start = waiting.pop()
        section, first = places[start]
        if section not in code:
            whole = sections.get(section, b"")
            code[section] = unpack(whole[: len(whole) // 8 * 8])
            relocations[section] = elf.relocations(content, section)
        for at in range(start, ends[program.functions.index(start)]):
            to = callee(at, program.instructions[at]) if at not in program.second else None
            if to is None or to in places:
                continue
            there = first + at - start
            if there >= len(code[section]):
                return None
            insn = code[section][there]
            symbol = relocations[section].get(8 * there)
            if symbol is None:
                places[to] = InstructionPlace(section, there + 1 + insn.value)
            elif symbol < len(table):
                into = insn.value + 1 if insn.code == CALL else insn.value // 8
                places[to] = InstructionPlace(
                    table[symbol].section, table[symbol].start // 8 + into
                )
            else:
                return None
            waiting.append(to)
    return places


def _inside(
    program: Flow, functions: Mapping[int, InstructionPlace], records: list[ExtRecord]
) -> dict[int, bytes]:
    """Return the records that belong to the functions of a program, by its instructions."""
    ends = [*program.functions[1:], len(program.instructions)]
    result = {}
    for start, end in zip(program.functions, ends, strict=True):
        if start not in functions:
            continue
        section, first = functions[start]
        for place, rest in records:
            if place.section == section and first <= place.at < first + end - start:
                result[start + place.at - first] = rest
    return dict(sorted(result.items()))


def _records(content: bytes, kind: int) -> Iterator[ExtRecord]:
    """Yield the function (0) or line (1) records of ``.BTF.ext``, as in its documentation."""
    parts = elf.sections(content)
    ext, btf = parts.get(".BTF.ext", b""), parts.get(".BTF", b"")
    try:
        header, *table = struct.unpack_from("=5I", ext, 4)
        btf_header, _, _, strings_at = struct.unpack_from("=4I", btf, 4)
        at, end = header + table[2 * kind], header + table[2 * kind] + table[2 * kind + 1]
        size = struct.unpack_from("=I", ext, at)[0]
        at += 4
        while at + 8 <= end and size >= 8:
            name, count = struct.unpack_from("=II", ext, at)
            at += 8
            section_at = btf_header + strings_at + name
            section = btf[section_at : btf.find(b"\0", section_at)].decode(errors="replace")
            for _ in range(count):
                offset = struct.unpack_from("=I", ext, at)[0]
                yield ExtRecord(InstructionPlace(section, offset // 8), ext[at + 4 : at + size])
                at += size
    except struct.error:
        return

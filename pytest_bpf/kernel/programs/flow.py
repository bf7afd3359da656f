"""What a program's instructions may do next: its blocks, its functions, its registers.

The instructions are those that libbpf relocated and handed to the kernel, subprograms behind the
program's own function. Sets of registers are numbers whose bit ``n`` stands for ``r<n>``. The codes
are those of ``uapi/linux/bpf.h``.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
"""Classes of instructions (``BPF_CLASS``)."""

LDDW, JA, GOTOL, CALL, EXIT, MAY_GOTO = 0x18, 0x05, 0x06, 0x85, 0x95, 0xE5
TO_FUNCTION, TO_KFUNC, TAIL_CALL = 1, 2, 12
A_FUNCTION = 4
"""``BPF_PSEUDO_CALL``, ``BPF_PSEUDO_KFUNC_CALL``, the helper of tail calls; ``BPF_PSEUDO_FUNC``."""

JSET, MOV, ADD = 0x40, 0xB0, 0x00
FETCH, CMPXCHG, LOAD_ACQUIRE, STORE_RELEASE = 0x01, 0xF1, 0x100, 0x110

ARGUMENTS = 0b00_0011_1110
ALL = 0b11_1111_1111
R0, R6, R10 = 1 << 0, 1 << 6, 1 << 10


class Insn(NamedTuple):
    """One ``struct bpf_insn``: its code, two registers, offset and immediate value."""

    code: int
    to: int
    of: int
    offset: int
    value: int


_LAYOUT = struct.Struct("=BBhi")


def unpack(code: bytes) -> list[Insn]:
    """Return the instructions of a program; one with a constant of 64 bits is two."""
    return [Insn(c, r & 15, r >> 4, o, v) for c, r, o, v in _LAYOUT.iter_unpack(code)]


def pack(instructions: Iterable[Insn]) -> bytes:
    """Return instructions as the kernel takes them."""
    return b"".join(_LAYOUT.pack(c, to | of << 4, o, v) for c, to, of, o, v in instructions)


def is_jump(insn: Insn) -> bool:
    """Tell whether an instruction jumps within its function, always or on a condition."""
    return insn.code & 7 in {JMP, JMP32} and insn.code & 0xF0 not in {0x80, 0x90}


def is_helper_call(insn: Insn) -> bool:
    """Tell whether an instruction calls a helper, whose number is its value."""
    return insn.code == CALL and insn.of == 0


def is_conditional(insn: Insn) -> bool:
    """Tell whether an instruction jumps on a condition."""
    return is_jump(insn) and insn.code not in {JA, GOTOL}


def jump_target(at: int, insn: Insn) -> int:
    """Return the instruction that the jump ``at`` goes to."""
    return at + 1 + (insn.value if insn.code == GOTOL else insn.offset)


def callee(at: int, insn: Insn) -> int | None:
    """Return where the function begins that is called ``at``, or whose address is taken there."""
    calls = insn.code == CALL and insn.of == TO_FUNCTION
    takes = insn.code == LDDW and insn.of == A_FUNCTION
    return at + 1 + insn.value if calls or takes else None


@dataclass(frozen=True)
class Flow:
    """The control flow of a program.

    ``second`` are the second halves of 64-bit constants, ``functions`` where functions begin (the
    program's own at 0), ``blocks`` where basic blocks begin, ``targets`` what is jumped to, all as
    numbers of instructions. ``live`` has for each instruction the registers whose values it or a
    later one reads, ``certain`` those that every way to it has written.
    """

    instructions: tuple[Insn, ...]
    second: frozenset[int]
    functions: tuple[int, ...]
    blocks: tuple[int, ...]
    targets: frozenset[int]
    live: tuple[int, ...]
    certain: tuple[int, ...]

    def block_of(self, at: int) -> int:
        """Return the number of the block that an instruction is in."""
        return bisect_right(self.blocks, at) - 1

    def function_of(self, at: int) -> int:
        """Return the start of the function that an instruction is in."""
        return self.functions[bisect_right(self.functions, at) - 1]

    def free(self, at: int) -> list[int]:
        """Return the registers that hold nothing before an instruction that is read later."""
        return [register for register in range(10) if not self.live[at] >> register & 1]


def flow(code: bytes) -> Flow:
    """Return the control flow of a program; `ValueError` when it jumps out of itself."""
    instructions = unpack(code)
    second = _second_halves(instructions)
    functions, blocks, targets = {0}, {0}, set()
    for at, insn in _first(instructions, second):
        start = callee(at, insn)
        if start is not None:
            functions.add(start)
            blocks.add(start)
        if is_jump(insn):
            targets.add(jump_target(at, insn))
            blocks |= {jump_target(at, insn), at + 1}
        elif insn.code == EXIT or _may_not_return(insn):
            blocks.add(at + 1)
    count = len(instructions)
    if wrong := [to for to in blocks if not 0 <= to <= count or to in second]:
        raise ValueError(f"there is no instruction {wrong[0]} of {count} to go to")
    after = successors(instructions, second)
    live, certain = _registers(instructions, second, functions, after)
    return Flow(
        tuple(instructions),
        frozenset(second),
        tuple(sorted(functions)),
        tuple(sorted(blocks - {count})),
        frozenset(targets),
        tuple(live),
        tuple(certain),
    )


def _first(instructions: Sequence[Insn], second: Container[int]) -> Iterable[tuple[int, Insn]]:
    return ((at, insn) for at, insn in enumerate(instructions) if at not in second)


def _second_halves(instructions: Sequence[Insn]) -> set[int]:
    second: set[int] = set()
    for at, insn in enumerate(instructions):
        if insn.code == LDDW and at not in second:
            second.add(at + 1)
    return second


def _may_not_return(insn: Insn) -> bool:
    """Tell whether what comes behind a call is not certain to run."""
    return insn.code == CALL and (insn.of in {TO_FUNCTION, TO_KFUNC} or insn.value == TAIL_CALL)


def successors(instructions: Sequence[Insn], second: Container[int]) -> list[tuple[int, ...]]:
    """Return for each instruction those that may run next in its function."""
    after: list[tuple[int, ...]] = [(at + 1,) for at in range(len(instructions))]
    for at, insn in _first(instructions, second):
        if insn.code == EXIT:
            after[at] = ()
        elif is_jump(insn):
            other = (at + 1,) if is_conditional(insn) else ()
            after[at] = (*other, jump_target(at, insn))
    return after


def uses(insn: Insn) -> tuple[int, int]:
    """Return the registers that an instruction reads and those that it writes or makes useless."""
    to, of, kind = 1 << insn.to, 1 << insn.of, insn.code & 7
    if kind in {ALU, ALU64}:
        read = of if insn.code & 8 and insn.code & 0xF0 != 0xD0 else 0
        return read | (0 if insn.code & 0xF0 == MOV else to), to
    if kind == LDX:
        return of, to
    if kind == ST:
        return to, 0
    if kind == STX:
        return _atomic(insn) if insn.code & 0xE0 == 0xC0 else (to | of, 0)
    if kind == LD:
        indirect = of if insn.code & 0xE0 == 0x40 else 0
        return (0, to) if insn.code == LDDW else (R6 | indirect, R0 | ARGUMENTS)
    if insn.code == CALL:
        return ARGUMENTS, R0 | ARGUMENTS
    if insn.code == EXIT:
        return R0, 0
    if insn.code in {JA, GOTOL} or insn.code & 0xF0 == 0xE0:
        return 0, 0
    return to | (of if insn.code & 8 else 0), 0


def _clobbers(insn: Insn) -> bool:
    """Tell whether an instruction writes r0 and leaves nothing in the registers of arguments."""
    return insn.code == CALL or (insn.code & 7 == LD and insn.code != LDDW)


def _atomic(insn: Insn) -> tuple[int, int]:
    to, of = 1 << insn.to, 1 << insn.of
    if insn.value == LOAD_ACQUIRE:
        return of, to
    if insn.value == CMPXCHG:
        return to | of | R0, R0
    fetches = insn.value & FETCH and insn.value != STORE_RELEASE
    return to | of, of if fetches else 0


def _registers(
    instructions: Sequence[Insn],
    second: set[int],
    functions: set[int],
    successors: Sequence[tuple[int, ...]],
) -> tuple[list[int], list[int]]:
    """Return the live and the certain registers before each instruction.

    Live is what is read later and may have been written: a call reads no more of r1 to r5 than
    was written, whatever its helper takes.
    """
    count = len(instructions)
    effects = [(0, 0) if at in second else uses(insn) for at, insn in enumerate(instructions)]
    live = _live(effects, successors)
    entries = {start: (2 if start == 0 else live[start] & ARGUMENTS) | R10 for start in functions}
    read = live
    if len(functions) > 1:  # what a call alone reads need be no argument of the function
        calls = [at not in second and insn.code == CALL for at, insn in enumerate(instructions)]
        own = [(0, w) if call else (r, w) for call, (r, w) in zip(calls, effects, strict=True)]
        read = _live(own, successors)
    given = {
        start: entry & (read[start] | R10 | 2 * (not start)) for start, entry in entries.items()
    }
    predecessors: list[list[int]] = [[] for _ in range(count + 1)]
    for at, after in enumerate(successors):
        for to in after:
            predecessors[to].append(at)

    clobbers = [at not in second and _clobbers(insn) for at, insn in enumerate(instructions)]

    def behind(state: list[int], at: int) -> int:
        return state[at] & ~ARGUMENTS | R0 if clobbers[at] else state[at] | effects[at][1]

    may = [0] * (count + 1)
    _repeat(
        range(count),
        may,
        lambda at: (
            entries[at] if at in entries else _union(behind(may, p) for p in predecessors[at])
        ),
    )
    certain = [ALL | R10] * (count + 1)

    def sure(at: int) -> int:
        if at in given:
            return given[at]
        return _intersection(behind(certain, p) for p in predecessors[at] if may[p])

    _repeat(range(count), certain, sure)
    both = [alive & written for alive, written in zip(live, may, strict=True)]
    return both[:count], [c & m for c, m in zip(certain, may, strict=True)][:count]


def _live(effects: Sequence[tuple[int, int]], successors: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the registers that are read later, before each instruction and behind the last."""
    live = [0] * (len(effects) + 1)
    _repeat(
        range(len(effects) - 1, -1, -1),
        live,
        lambda at: _union(live[to] for to in successors[at]) & ~effects[at][1] | effects[at][0],
    )
    return live


def _repeat(order: Iterable[int], state: list[int], new: Callable[[int], int]) -> None:
    """Set each place of ``state`` to its new value until nothing changes."""
    changed = True
    while changed:
        changed = False
        for at in order:
            value = new(at)
            if value != state[at]:
                state[at], changed = value, True


def _union(sets: Iterable[int]) -> int:
    total = 0
    for one in sets:
        total |= one
    return total


def _intersection(sets: Iterable[int]) -> int:
    common = ALL | R10
    for one in sets:
        common &= one
    return common

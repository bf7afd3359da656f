"""A program with counters between its instructions: three builds of one program.

======== ============================================= ============================
build    what is written to the counters' map          room for each place
======== ============================================= ============================
hit      1 when a block is entered                     1 byte
count    how often a block is entered                  8 bytes
operands what a conditional jump compared last         16 bytes, left before right
======== ============================================= ============================

A counter takes registers that hold nothing; where there are too few, others are put aside on the
stack. What is counted between a conditional jump and a block that is jumped to from elsewhere, too,
has a counter of its own (`Build.edges`), so the outcome of each jump is known.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from pytest_bpf.kernel.programs.flow import (
    ADD,
    ALU64,
    EXIT,
    GOTOL,
    JA,
    JSET,
    LDDW,
    LDX,
    MOV,
    ST,
    STX,
    Insn,
    callee,
    flow,
    is_conditional,
    is_helper_call,
    is_jump,
    jump_target,
    pack,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_bpf.kernel.programs.flow import Flow

Mode = Literal["hit", "count", "operands", "plain"]

WIDTHS: dict[Mode, int] = {"hit": 1, "count": 8, "operands": 16, "plain": 0}
"""Bytes of the counters' map that each place takes; a plain build has pins alone."""

MAP_VALUE = 2
"""``BPF_PSEUDO_MAP_VALUE``: a constant that is an address in a map's only value."""

CURRENT = 14
"""``bpf_get_current_pid_tgid``; its lower half is the thread."""

ONWARDS = Insn(JA, 0, 0, 0, 0)
"""A jump to the next instruction: Linux before 6.3 lets nothing but a jump lead back in a loop."""

FARTHEST = 2**15
"""How far a jump reaches, in instructions."""


class TooLongError(ValueError):
    """A program whose jumps would not reach their targets with counters between."""


@dataclass(frozen=True)
class Build:
    """A program with counters.

    ``code`` are its instructions. ``places`` are the instructions of ``flow`` that the counters
    belong to, in the order of the counters: first those of blocks (``hit`` and ``count``), then
    those of ``edges``; or the jumps whose operands are written. ``edges`` has, by the block that is
    entered, the counter of the ways that come from the instruction before it. ``starts`` are the
    new numbers of the old instructions, counters in front of them included, and ``spills`` is how
    many counters put registers aside. ``pins`` are the helpers whose answers stand behind the
    counters, 8 bytes each, in place of the kernel's. ``taken`` has, by conditional jump, the
    counter of its way to a block that other ways lead to as well (``hit`` alone, after all others).
    """

    mode: Mode
    flow: Flow
    code: bytes
    places: tuple[int, ...]
    edges: Mapping[int, int]
    starts: tuple[int, ...]
    spills: int
    pins: tuple[int, ...] = ()
    taken: Mapping[int, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The bytes of the counters."""
        return WIDTHS[self.mode] * len(self.places)

    @property
    def pins_at(self) -> int:
        """Where the answers of the pinned helpers begin."""
        return -(-self.size // 8) * 8

    @property
    def room(self) -> int:
        """The bytes of the map's value."""
        return max(8, self.pins_at + 8 * len(self.pins))


def places(program: Flow, mode: Mode) -> tuple[tuple[int, ...], dict[int, int]]:
    """Return the places of a build and the counters of its edges, as `Build` has them."""
    if mode == "plain":
        return (), {}
    if mode == "operands":
        jumps = (at for at, insn in _first(program) if _compares(insn))
        return tuple(jumps), {}
    shared = [
        at + 1 for at, insn in _first(program) if is_conditional(insn) and at + 1 in program.targets
    ]
    first = len(program.blocks)
    edges = {block: first + number for number, block in enumerate(shared)}
    return (*program.blocks, *shared), edges


def build(
    program: Flow | bytes,
    mode: Mode,
    fd: int,
    pins: Sequence[int] = (),
    gate: tuple[int, int] | None = None,
) -> Build:
    """Return a program with counters in the map ``fd``, whose only value has room for them.

    A call of a helper among ``pins`` becomes a reading of its answer, which stands behind the
    counters: helpers that take nothing and return a number, such as clocks. A ``gate`` is a map,
    and a bit: the program returns 0 at once unless the lower half of the map's value is the thread
    that runs it, and the upper half has that bit.

    Raises `TooLongError`, and `ValueError` for a program that jumps out of itself.
    """
    if isinstance(program, bytes):
        program = flow(program)
    where, edges = places(program, mode)
    jumps = _shared_jumps(program) if mode == "hit" else []
    taken = {at: len(where) + number for number, at in enumerate(jumps)}
    writer = _Writer(program, mode, fd)
    in_front: dict[int, list[Insn]] = {}
    before: dict[int, list[Insn]] = {}
    for counter, at in enumerate(where):
        if edges.get(at) == counter:
            before[at] = [*writer.counter(counter, at), ONWARDS]
        else:
            in_front[at] = writer.counter(counter, at)
    bare = Build(mode, program, b"", (*where, *jumps), edges, (), 0, tuple(pins), taken)
    if gate is not None:
        in_front[0] = [*_gate(*gate), *in_front.get(0, ())]
    answers = {helper: bare.pins_at + 8 * n for n, helper in enumerate(pins)}
    code: list[Insn] = []
    detours: dict[int, tuple[int, int]] = {}
    starts: list[int] = []
    own: list[int] = []
    for at, insn in enumerate(program.instructions):
        code += before.get(at, ())
        starts.append(len(code))
        code += in_front.get(at, ())
        own.append(len(code))
        answer = answers.get(insn.value) if is_helper_call(insn) else None
        if answer is None or at in program.second:
            code.append(insn)
        else:
            code += [*_address(0, fd, answer), Insn(0x79, 0, 0, 0, 0)]
        if at + 1 in program.functions or at + 1 == len(program.instructions):
            detours |= _detours(program, writer, taken, at, code)
    for at, insn in _first(program):
        if callee(at, insn) is not None or is_jump(insn):
            target = starts[jump_target(at, insn)] if is_jump(insn) else 0
            if at in detours:
                entry, leave = detours[at]
                code[leave] = Insn(JA, 0, 0, _reach(insn, target - leave - 1), 0)
                target = entry
            code[own[at]] = _mended(insn, at, own[at], starts, target)
    return replace(bare, code=pack(code), starts=tuple(starts), spills=writer.spills)


def _gate(fd: int, bit: int) -> list[Insn]:
    """Return what ends a program unless its gate is open for the thread that runs it."""
    return [
        Insn(0xBF, 6, 1, 0, 0),
        Insn(0x85, 0, 0, 0, CURRENT),
        *_address(1, fd, 0),
        Insn(0x79, 1, 1, 0, 0),
        Insn(0x5E, 0, 1, 2, 0),  # the lower halves are not equal
        Insn(0x77, 1, 0, 0, 32),
        Insn(0x45, 1, 0, 2, bit),
        Insn(0xB7, 0, 0, 0, 0),
        Insn(EXIT, 0, 0, 0, 0),
        Insn(0xBF, 1, 6, 0, 0),
    ]


def _address(register: int, fd: int, offset: int) -> list[Insn]:
    """Return the instruction that puts an address in the map's value into a register."""
    return [Insn(LDDW, register, MAP_VALUE, 0, fd), Insn(0, 0, 0, 0, offset)]


def _first(program: Flow) -> Iterable[tuple[int, Insn]]:
    return ((at, i) for at, i in enumerate(program.instructions) if at not in program.second)


def _compares(insn: Insn) -> bool:
    """Tell whether a jump compares two values: `JSET` tests bits, and may_goto has no operands."""
    return is_conditional(insn) and insn.code & 0xF0 not in {JSET, 0xE0}


def _shared_jumps(program: Flow) -> list[int]:
    """Return the conditional jumps to blocks that other ways lead to as well."""
    ways = Counter(jump_target(at, insn) for at, insn in _first(program) if is_jump(insn))
    for at, insn in _first(program):
        behind = at + (2 if insn.code == LDDW else 1)
        if insn.code not in {JA, GOTOL, EXIT}:
            ways[behind] += 1
    return [
        at
        for at, insn in _first(program)
        if is_conditional(insn) and ways[jump_target(at, insn)] > 1
    ]


def _detours(
    program: Flow, writer: _Writer, taken: Mapping[int, int], end: int, code: list[Insn]
) -> dict[int, tuple[int, int]]:
    """Append, behind a function that ends at ``end``, a counter for each way that is taken.

    Return by jump where its counter begins, and where the jump from there onwards stands.
    """
    start = program.function_of(end)
    result = {}
    for at, counter in taken.items():
        if start <= at <= end:
            entry = len(code)
            code += writer.counter(counter, jump_target(at, program.instructions[at]))
            result[at] = (entry, len(code))
            code.append(Insn(JA, 0, 0, 0, 0))
    return result


def _mended(insn: Insn, at: int, now: int, starts: Sequence[int], target: int) -> Insn:
    """Return an instruction that stands elsewhere now, as does what it jumps to or calls."""
    start = callee(at, insn)
    if start is not None:
        return insn._replace(value=starts[start] - now - 1)
    distance = target - now - 1
    if insn.code & 7 == 6 and not is_conditional(insn):
        return insn._replace(value=distance)
    return insn._replace(offset=_reach(insn, distance))


def _reach(insn: Insn, distance: int) -> int:
    if not -FARTHEST <= distance < FARTHEST:
        raise TooLongError(
            f"a jump of {insn.offset} instructions would be one of {distance} with counters "
            f"between; jumps reach {FARTHEST}"
        )
    return distance


class _Writer:
    """Writes the instructions of counters, and knows which stack is free in each function."""

    def __init__(self, program: Flow, mode: Mode, fd: int) -> None:
        self.program, self.mode, self.fd = program, mode, fd
        self.spills = 0
        self._stacks: dict[int, int] = {}

    def counter(self, number: int, at: int) -> list[Insn]:
        """Return the instructions of a counter that stands before an instruction."""
        need = 2 if self.mode == "count" else 1
        registers = self.program.free(at)[:need]
        aside = self._others(at, need - len(registers))
        self.spills += bool(aside)
        bottom = self._stack(at) if aside else 0
        slots = [(register, bottom - 8 * (n + 1)) for n, register in enumerate(aside)]
        save = [Insn(0x7B, 10, register, offset, 0) for register, offset in slots]
        restore = [Insn(0x79, register, 10, offset, 0) for register, offset in slots]
        return [*save, *self._count(number, at, [*registers, *aside]), *restore]

    def _others(self, at: int, count: int) -> list[int]:
        """Return registers to put aside: any that has been written and that is not compared."""
        if count <= 0:
            return []
        insn = self.program.instructions[at]
        compared = {insn.to, insn.of} if self.mode == "operands" else set()
        certain = self.program.certain[at] & self.program.live[at]
        return [r for r in range(9, -1, -1) if certain >> r & 1 and r not in compared][:count]

    def _count(self, number: int, at: int, registers: list[int]) -> list[Insn]:
        address = registers[0]
        width = WIDTHS[self.mode]
        load = _address(address, self.fd, width * number)
        if self.mode == "hit":
            return [*load, Insn(0x72, address, 0, 0, 1)]
        if self.mode == "count":
            one = registers[1]
            return [*load, Insn(0xB7, one, 0, 0, 1), Insn(0xDB, address, one, 0, 0)]
        jump = self.program.instructions[at]
        right = (
            Insn(0x7B, address, jump.of, 8, 0)
            if jump.code & 8
            else Insn(0x7A, address, 0, 8, jump.value)
        )
        return [*load, Insn(0x7B, address, jump.to, 0, 0), right]

    def _stack(self, at: int) -> int:
        """Return the offset below which a function has nothing on its stack."""
        start = self.program.function_of(at)
        if start not in self._stacks:
            self._stacks[start] = _deepest(self.program, start) // 8 * 8
        return self._stacks[start]


def _deepest(program: Flow, start: int) -> int:
    """Return the lowest offset from r10 that a function writes out."""
    end = next((other for other in program.functions if other > start), len(program.instructions))
    deepest, copies = 0, {10}
    body = [(at, insn) for at, insn in _first(program) if start <= at < end]
    copies |= {i.to for _, i in body if i.code == ALU64 | MOV | 8 and i.of == 10}
    for _, insn in body:
        kind = insn.code & 7
        base = insn.of if kind == LDX else insn.to
        if kind in {LDX, ST, STX} and base == 10:
            deepest = min(deepest, insn.offset)
        elif insn.code == ALU64 | ADD and insn.to in copies and -512 <= insn.value < 0:
            deepest = min(deepest, insn.value)
    return deepest


def outcomes(made: Build, counts: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return by conditional jump how often it jumped and how often not, of a ``count`` build.

    A jump counts as reached when its block is entered.
    """
    if made.mode != "count":
        raise ValueError(f"outcomes are known of a count build, not of a build {made.mode!r}")
    program = made.flow
    blocks = dict(zip(program.blocks, counts, strict=False))
    result = {}
    for at, insn in _first(program):
        if not is_conditional(insn):
            continue
        reached = blocks[program.blocks[program.block_of(at)]]
        behind = at + 1
        passed = counts[made.edges[behind]] if behind in made.edges else blocks.get(behind, 0)
        result[at] = (reached - passed, passed)
    return result

"""What registers and the stack hold before each instruction, as far as it can be told.

The values are followed along all ways through a function until nothing changes any more. Where two
ways differ, nothing is known of a value but the instructions that it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.kernel.programs.flow import (
    ADD,
    ALU,
    ALU64,
    CALL,
    EXIT,
    LDDW,
    LDX,
    MOV,
    ST,
    STX,
    Insn,
    is_conditional,
)
from pytest_bpf.lint import helpers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.lint.functions import Function

NOTHING: frozenset[int] = frozenset()
SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
"""Bytes by the size bits of a code (``BPF_SIZE``)."""

ANYWHERE = -(1 << 40)
"""The offset of an address to which something was added that is not known."""

STACK, LARGEST_RECORD = 512, 4096
"""Bytes of a function's stack, and of a record of which it is known what was written."""

ATOMIC = 0xC0
"""``BPF_ATOMIC``, the mode of a code."""


class Value(NamedTuple):
    """What a register or a slot of the stack holds.

    ``kind`` is "scalar", "constant", "stack", "context", "map", "global", "element" (of a map) or
    "record" (of a ring buffer). ``name`` is the map's or section's, ``offset`` the constant or the
    bytes behind the start. ``at`` is the instruction that made it: equal values of one ``at`` are
    one value. ``origin`` are the calls and loads that it comes from.
    """

    kind: str = "scalar"
    name: str = ""
    offset: int = 0
    at: int = -1
    origin: frozenset[int] = NOTHING

    @property
    def is_pointer(self) -> bool:
        """Whether it is an address."""
        return self.kind not in {"scalar", "constant"}


@dataclass(frozen=True)
class RegisterState:
    """What is known before an instruction.

    ``slots`` are the values on the stack by offset and size. ``written`` are the bytes that every
    way has written: ``("stack", offset)``, or the call that reserved a record and the offset in it.
    ``called`` are the calls that every way has made, ``passed`` the branches that every way has
    taken, with the instruction that each went to.
    """

    registers: tuple[Value, ...]
    slots: Mapping[tuple[int, int], Value]
    written: frozenset[tuple[object, int]]
    called: frozenset[int]
    passed: frozenset[tuple[int, int]]

    def slot(self, offset: int, size: int) -> Value:
        """Return what is on the stack at an offset; an unknown value when it is not known."""
        if (offset, size) in self.slots:
            return self.slots[offset, size]
        for (start, length), value in self.slots.items():
            if start <= offset and offset + size <= start + length and not value.is_pointer:
                return Value(at=value.at, offset=offset - start, origin=value.origin)
        return Value()

    def content(self, pointer: Value, size: int) -> tuple[object, ...] | None:
        """Return what identifies the ``size`` bytes at an address; None when it is not known."""
        if pointer.kind == "global":
            return ("global", pointer.name, pointer.offset)
        if pointer.kind != "stack" or not size:
            return None
        end = pointer.offset + size
        parts = [
            (start - pointer.offset, length, value)
            for (start, length), value in sorted(self.slots.items(), key=lambda item: item[0])
            if start < end and start + length > pointer.offset
        ]
        covered = {byte for start, length, _ in parts for byte in range(start, start + length)}
        if not covered.issuperset(range(size)):
            return None
        if any(v.kind == "scalar" and v.at < 0 for _, _, v in parts):
            return None
        return tuple(parts)


def _start(function: Function) -> RegisterState:
    first = Value("context") if function.entry else Value()
    registers = (Value(), first, *([Value()] * 8), Value("stack"))
    return RegisterState(registers, {}, frozenset(), NOTHING, frozenset())


def states(function: Function) -> list[RegisterState | None]:
    """Return what is known before each instruction; None for those that no way reaches."""
    before: list[RegisterState | None] = [None] * len(function.instructions)
    if not before:
        return before
    before[0] = _start(function)
    waiting = [0]
    while waiting:
        at = heappop(waiting)  # in order: what leads to an instruction is mostly before it
        state = before[at]
        assert state is not None
        after = step(function, at, state)
        targets = function.successors[at]
        branches = is_conditional(function.instructions[at]) and len(set(targets)) > 1
        for target in targets:
            state = replace(after, passed=after.passed | {(at, target)}) if branches else after
            joined = state if (old := before[target]) is None else _join(old, state)
            if joined != old:
                before[target] = joined
                heappush(waiting, target)
    return before


def _join(one: RegisterState, other: RegisterState) -> RegisterState:
    if one == other:
        return one
    slots = {
        key: _join_values(value, other.slots[key])
        for key, value in one.slots.items()
        if key in other.slots
    }
    registers = tuple(map(_join_values, one.registers, other.registers))
    return RegisterState(
        registers,
        slots,
        one.written & other.written,
        one.called & other.called,
        one.passed & other.passed,
    )


def _join_values(one: Value, other: Value) -> Value:
    return one if one == other else Value(origin=one.origin | other.origin)


def step(function: Function, at: int, state: RegisterState) -> RegisterState:
    """Return what is known after an instruction."""
    insn = function.instructions[at]
    kind = insn.code & 7
    if insn.code == LDDW:
        return _set(state, insn.to, _constant(function, at, insn))
    if kind in {ALU, ALU64}:
        return _set(state, insn.to, _arithmetic(at, insn, state))
    if kind == LDX:
        return _set(state, insn.to, _load(at, insn, state))
    if kind in {ST, STX}:
        return _store(at, insn, state)
    if insn.code == CALL:
        return _call(function, at, state)
    return state


def _set(state: RegisterState, register: int, value: Value) -> RegisterState:
    registers = (*state.registers[:register], value, *state.registers[register + 1 :])
    return replace(state, registers=registers)


def _constant(function: Function, at: int, insn: Insn) -> Value:
    symbol = function.symbols.get(at)
    if symbol is None:
        high = function.instructions[at + 1].value
        return Value("constant", offset=high << 32 | (insn.value & 0xFFFFFFFF))
    if symbol.section in {".maps", "maps"}:
        return Value("map", symbol.name)
    return Value("global", symbol.section, symbol.start + insn.value)


def _arithmetic(at: int, insn: Insn, state: RegisterState) -> Value:
    left = state.registers[insn.to]
    by_register = bool(insn.code & 8)
    right = state.registers[insn.of] if by_register else Value("constant", offset=insn.value)
    operation = insn.code & 0xF0
    if operation == MOV:
        return right
    if (
        operation == ADD
        and right.kind == "constant"
        and left.is_pointer
        and left.offset != ANYWHERE
    ):
        return left._replace(offset=left.offset + right.offset)
    if operation == ADD and left.is_pointer:  # a variable offset: nothing is known of the place
        return Value(left.kind, left.name, ANYWHERE, left.at, left.origin | right.origin)
    if left.kind == right.kind == "constant" and operation == ADD:
        return Value("constant", offset=left.offset + right.offset)
    return Value(at=at, origin=left.origin | right.origin)


def _load(at: int, insn: Insn, state: RegisterState) -> Value:
    base, size = state.registers[insn.of], SIZES[insn.code & 0x18]
    if base.kind == "stack":
        value = state.slot(base.offset + insn.offset, size)
        return value if value.at >= 0 or value.is_pointer or value.origin else Value(at=at)
    return Value(at=at, origin=base.origin | {at})


def _store(at: int, insn: Insn, state: RegisterState) -> RegisterState:
    base, size = state.registers[insn.to], SIZES[insn.code & 0x18]
    if insn.code & 0xE0 == ATOMIC:
        fetches = insn.value & 1
        return _set(state, insn.of, Value(at=at, origin=frozenset({at}))) if fetches else state
    by_register = insn.code & 7 == STX
    value = state.registers[insn.of] if by_register else Value("constant", offset=insn.value)
    return _write(state, base, insn.offset, size, value)


def _write(
    state: RegisterState, base: Value, offset: int, size: int, value: Value
) -> RegisterState:
    """Return the state after ``size`` bytes at an address became ``value``."""
    start = base.offset + offset
    if base.offset == ANYWHERE:
        start, size = (0, LARGEST_RECORD) if base.kind == "record" else (-STACK, STACK)
        value = Value(origin=value.origin)
    if base.kind == "record":
        return replace(state, written=state.written | _bytes(base.at, start, size))
    if base.kind != "stack":
        return state
    slots = {
        (place, length): old
        for (place, length), old in state.slots.items()
        if place + length <= start or place >= start + size
    }
    slots[start, size] = value
    return replace(state, slots=slots, written=state.written | _bytes("stack", start, size))


def _bytes(region: object, start: int, size: int) -> frozenset[tuple[object, int]]:
    return frozenset((region, byte) for byte in range(start, start + min(size, LARGEST_RECORD)))


def _call(function: Function, at: int, state: RegisterState) -> RegisterState:
    insn = function.instructions[at]
    helper = insn.value if insn.of == 0 and at not in function.symbols else -1
    arguments = state.registers[1:6]
    made = Value(at=at, origin=frozenset({at}).union(*(a.origin for a in arguments)))
    state = replace(state, called=state.called | {at})
    for number, pointer in enumerate(arguments):
        size = arguments[number + 1] if number < 4 else Value()
        if not pointer.is_pointer or pointer.kind in {"context", "map"}:
            continue
        whole = LARGEST_RECORD if pointer.kind == "record" else STACK
        if helper in helpers.FILLS and helpers.FILLS[helper] == number:
            known = size.offset if size.kind == "constant" else whole
            state = _write(state, pointer, 0, known, made)
        elif helper < 0:  # a function may write all of it
            state = _write(state, pointer, 0, whole, made)
    if helper == helpers.MAP_LOOKUP and arguments[0].kind == "map":
        made = Value("element", arguments[0].name, 0, at, frozenset({at}))
    elif helper == helpers.RINGBUF_RESERVE:
        made = Value("record", arguments[0].name, 0, at, frozenset({at}))
    elif helper in helpers.CHEAP:
        made = Value(at=at, origin=frozenset({at}))
    registers = (made, *([Value()] * 5), *state.registers[6:])
    return replace(state, registers=registers)


def ends(function: Function, start: int) -> bool:
    """Say whether what begins at an instruction does nothing but return."""
    at = start
    for _ in range(8):
        insn = function.instructions[at]
        if insn.code == EXIT:
            return True
        if insn.code & 7 in {LDX, ST, STX} or insn.code == CALL or is_conditional(insn):
            return False
        if not function.successors[at]:
            return False
        at = function.successors[at][0]
    return False

"""Where the programs of an object write events: the map, and the size as far as it is constant."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Union

from pytest_bpf.objects import elf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Write:
    """One call that writes an event, or reserves room for it, in a map.

    ``at`` is its instruction, counted from the start of ``section``; ``function`` the one that it
    stands in; ``size`` the event's in bytes, None where it is not the same on every path;
    ``data`` the place of the event among the call's arguments, None where room is reserved.
    """

    map: str
    section: str
    function: str
    at: int
    size: int | None
    data: int | None


class MapAddress(NamedTuple):
    """What a register holds: the address of a map."""

    name: str


class Arguments(NamedTuple):
    """Where a helper takes the map, the size and the event: its registers, counted from 1."""

    map: int
    size: int
    data: int | None = None


HELPERS = {
    25: Arguments(2, 5, 4),  # bpf_perf_event_output
    111: Arguments(2, 5, 4),  # bpf_skb_output
    121: Arguments(2, 5, 4),  # bpf_xdp_output
    130: Arguments(1, 3, 2),  # bpf_ringbuf_output
    131: Arguments(1, 2),  # bpf_ringbuf_reserve
    198: Arguments(1, 2),  # bpf_ringbuf_reserve_dynptr
}

RESERVE_DYNPTR = 198
THROUGH_DYNPTR = {
    202: Arguments(1, 4, 3),  # bpf_dynptr_write
    203: Arguments(1, 3),  # bpf_dynptr_data
}
"""Where helpers that fill a record take the size and the data; the offset is the second one."""

Value = Union[int, MapAddress]  # noqa: UP007 (isinstance is not meant; 3.10)
State = dict[int, Value]

LDDW, CALL, EXIT, JA, JA_LONG = 0x18, 0x85, 0x95, 0x05, 0x06
MOV_IMM, MOV_IMM32, MOV, MOV32, ADD_IMM = 0xB7, 0xB4, 0xBF, 0xBC, 0x07
LOAD, ALU32, JUMP, JUMP32, ALU64 = 1, 4, 5, 6, 7
MAP_SECTIONS = frozenset({".maps", "maps"})


@lru_cache(maxsize=16)
def find_writes(content: bytes) -> tuple[Write, ...]:
    """Return where the programs in an object file write events."""
    if not content:  # of BCC, or of a map that somebody else made
        return ()
    symbols = elf.symbols(content)
    parts = elf.sections(content)
    maps = {(s.section, s.start): s.name for s in symbols if s.section in MAP_SECTIONS and s.name}
    writes: list[Write] = []
    for function in symbols:
        code = parts.get(function.section, b"")
        if not function.function or not function.size or len(code) % 8:
            continue
        relocations = {
            offset // 8: symbols[index]
            for offset, index in elf.relocations(content, function.section).items()
            if index < len(symbols)
        }
        begin, end = function.start // 8, (function.start + function.size) // 8
        writes += _Scan(code, relocations, maps).writes(function, begin, min(end, len(code) // 8))
    return tuple(writes)


class _Scan:
    """What registers hold in one function, as far as it is the same on every path."""

    def __init__(
        self,
        code: bytes,
        relocations: Mapping[int, elf.Symbol],
        maps: Mapping[tuple[str, int], str],
    ) -> None:
        self._code = list(struct.iter_unpack("=BBhi", code))
        self._relocations = relocations
        self._maps = maps

    def writes(self, function: elf.Symbol, begin: int, end: int) -> Iterator[Write]:
        record = ""
        room: Write | None = None
        for at, state in sorted(self._states(begin, end).items(), key=lambda pair: pair[0]):
            opcode, registers, _, helper = self._code[at]
            if opcode != CALL or registers >> 4:
                continue
            arguments = HELPERS.get(helper)
            target = state.get(arguments.map) if arguments else None
            if helper in THROUGH_DYNPTR and record and state.get(2) == 0:
                arguments, target, room = THROUGH_DYNPTR[helper], MapAddress(record), None
            if not arguments or not isinstance(target, MapAddress):
                continue
            size = state.get(arguments.size)
            constant = size if isinstance(size, int) else None
            write = Write(
                target.name, function.section, function.name, at, constant, arguments.data
            )
            if helper == RESERVE_DYNPTR:  # what is written into it says more
                record, room = target.name, write
            else:
                yield write
        if room:
            yield room

    def _states(self, begin: int, end: int) -> dict[int, State]:
        """Return what is in the registers before each instruction that can be reached."""
        states: dict[int, State] = {begin: {}}
        work = [begin]
        while work:
            at = work.pop()
            after = self._after(at, states[at])
            for following in self._successors(at):
                if not begin <= following < end:
                    continue
                before = states.get(following)
                merged = after if before is None else dict(before.items() & after.items())
                if merged != before:
                    states[following] = merged
                    work.append(following)
        return states

    def _successors(self, at: int) -> list[int]:
        opcode, _, offset, immediate = self._code[at]
        if opcode == EXIT:
            return []
        if opcode == JA:
            return [at + 1 + offset]
        if opcode == JA_LONG:
            return [at + 1 + immediate]
        if opcode == LDDW:
            return [at + 2]
        if opcode & 7 in {JUMP, JUMP32} and opcode != CALL:
            return [at + 1, at + 1 + offset]
        return [at + 1]

    def _after(self, at: int, state: State) -> State:
        opcode, registers, _, immediate = self._code[at]
        target, source = registers & 15, registers >> 4
        if opcode == CALL:
            return {register: value for register, value in state.items() if register > 5}
        if opcode & 7 not in {0, LOAD, ALU32, ALU64}:
            return state
        value: Value | None = None
        if opcode == LDDW:
            value = self._wide(at)
        elif opcode in {MOV_IMM, MOV_IMM32}:
            value = immediate
        elif opcode in {MOV, MOV32}:
            value = state.get(source)
        elif opcode == ADD_IMM and isinstance(before := state.get(target), int):
            value = before + immediate
        after = {register: old for register, old in state.items() if register != target}
        if value is not None:
            after[target] = value
        return after

    def _wide(self, at: int) -> Value | None:
        """Return what an instruction of 64 bits loads: a map's address, or a number."""
        low = self._code[at][3]
        symbol = self._relocations.get(at)
        if symbol is None:
            return low if at + 1 < len(self._code) and not self._code[at + 1][3] else None
        name = self._maps.get((symbol.section, symbol.start + (0 if symbol.name else low)))
        return MapAddress(name) if name else None

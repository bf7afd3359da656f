"""What a program does with its context: the bytes of it that its instructions read and write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs.flow import (
    CALL,
    LDX,
    ST,
    STX,
    TO_FUNCTION,
    callee,
    successors,
    uses,
)

if TYPE_CHECKING:
    from pytest_bpf.kernel.programs.flow import Flow, Insn

SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
"""The bytes of a load or a store, by the bits of its code that say so (``BPF_SIZE``)."""

COPY, LOAD_WORD, STORE_WORD = 0xBF, 0x79, 0x7B
"""``rX = rY``, ``rX = *(u64 *)(rY + offset)``, ``*(u64 *)(rX + offset) = rY``."""

CONTEXT, STACK = 1, 10
"""The register that has the context when a program begins, and that of the stack."""

Holders = frozenset[int]
"""Where the address of the context may be: registers, and places of the stack, which are below 0"""


@dataclass(frozen=True)
class ContextUse:
    """The places of a context, each an offset and a size, that are read, and that are written.

    What a program reads by an address that it has added to is not known; the verifier refuses that
    for most contexts.
    """

    reads: frozenset[tuple[int, int]]
    writes: frozenset[tuple[int, int]]


def context_use(program: Flow) -> ContextUse:
    """Return what a program reads and writes of its context."""
    after = successors(program.instructions, program.second)
    before: dict[int, Holders] = {0: frozenset({CONTEXT})}
    waiting = [0]
    while waiting:
        at = waiting.pop()
        insn, holders = program.instructions[at], before[at]
        ways = [(to, _behind(insn, holders)) for to in _next(after, at, program)]
        if insn.code == CALL and insn.of == TO_FUNCTION:
            start = callee(at, insn)
            assert start is not None
            ways.append((start, frozenset(one for one in holders if 1 <= one <= 5)))
        for to, more in ways:
            known = before.get(to)
            if known is None or not more <= known:
                before[to] = more | (known or frozenset())
                waiting.append(to)
    reads, writes = set(), set()
    for at, holders in before.items():
        insn = program.instructions[at]
        place = (insn.offset, SIZES[insn.code & 0x18])
        if insn.code & 7 == LDX and insn.of in holders:
            reads.add(place)
        elif insn.code & 7 in {ST, STX} and insn.to in holders:
            writes.add(place)
    return ContextUse(frozenset(reads), frozenset(writes))


def _next(after: list[tuple[int, ...]], at: int, program: Flow) -> list[int]:
    """Return the instructions that may run next, none behind the last."""
    places = [to + 1 if to in program.second else to for to in after[at]]
    return [to for to in places if to < len(program.instructions)]


def _behind(insn: Insn, holders: Holders) -> Holders:
    """Return where the context's address may be behind an instruction."""
    if insn.code == STORE_WORD and insn.to == STACK:
        rest = holders - {insn.offset}
        return rest | {insn.offset} if insn.of in holders else rest
    written = uses(insn)[1]
    rest = frozenset(one for one in holders if one < 0 or not written >> one & 1)
    copies = insn.code == COPY and insn.of in holders
    fills = insn.code == LOAD_WORD and insn.of == STACK and insn.offset in holders
    return rest | {insn.to} if copies or fills else rest

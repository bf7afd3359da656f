"""Rules about the code itself: loops, the stack, arithmetic, calls."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs.flow import ALU, ALU64, CALL, LDX, ST, STX
from pytest_bpf.lint import helpers
from pytest_bpf.lint.values import ANYWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.lint.findings import LintFinding
    from pytest_bpf.lint.subject import Analysis, LintSubject

DIVISION, REMAINDER = 0x30, 0x90
STACK = 384
"""Bytes of the stack of one function, of 512, from which on it is large."""

MANY = 8
"""Reads of the same small size, one after the other, that are one read better."""

SHORT = 32
"""Instructions of a function whose call is a part of its cost."""

SMALL = 16
"""Bytes of a small read."""


def byte_loop(subject: LintSubject) -> Iterator[LintFinding]:
    """Memory is read in small pieces, in a loop or one after the other."""
    for analysis in subject.analyses:
        function = analysis.function
        reads = []
        for at, helper, state in analysis.helper_calls():
            size = state.registers[2]
            if helper not in helpers.READS or size.kind != "constant":
                continue
            name = helpers.READS[helper]
            if size.offset == 1 and at in function.looped:
                better = helpers.STRINGS.get(name, name)
                message = f"one {name} for each byte; {better} reads them all in one call"
                yield subject.finding("byte-loop", analysis, at, message)
            elif 0 < size.offset <= SMALL:
                reads.append((at, name, size.offset, state.registers[3].origin))
        counts = Counter((name, size, origin) for _, name, size, origin in reads if origin)
        for (name, length, origin), count in counts.items():
            if count >= MANY:
                at = next(read[0] for read in reads if read[1:] == (name, length, origin))
                message = f"{count} calls of {name} read {length} bytes each: read once"
                yield subject.finding("byte-loop", analysis, at, message)


def large_stack(subject: LintSubject) -> Iterator[LintFinding]:
    """A function takes most of the stack."""
    for analysis in subject.analyses:
        lowest, place = min(_stack_uses(analysis), default=(0, 0))
        if -lowest >= STACK:
            message = (
                f"{-lowest} of 512 bytes of the stack are used: a call from here may find no room; "
                "a per-CPU array of one element has room"
            )
            yield subject.finding("large-stack", analysis, place, message)


def _stack_uses(analysis: Analysis) -> Iterator[tuple[int, int]]:
    """Yield the offsets on the stack that are used, each with the instruction that does it."""
    for at, insn in enumerate(analysis.function.instructions):
        state = analysis.states[at]
        if state is None:
            continue
        pointers = [(value, 0) for value in state.registers[1:6]] if insn.code == CALL else []
        if insn.code & 7 in {LDX, ST, STX}:
            base = insn.of if insn.code & 7 == LDX else insn.to
            pointers = [(state.registers[base], insn.offset)]
        for value, offset in pointers:
            if value.kind == "stack" and value.offset != ANYWHERE:
                yield value.offset + offset, at


def constant_division(subject: LintSubject) -> Iterator[LintFinding]:
    """A number is divided by a constant that is no power of two."""
    for analysis in subject.analyses:
        for at, insn in enumerate(analysis.function.instructions):
            divides = insn.code & 7 in {ALU, ALU64} and insn.code & 0xF0 in {DIVISION, REMAINDER}
            if not divides or insn.code & 8 or insn.value & (insn.value - 1) == 0:
                continue
            if analysis.states[at] is not None:
                message = (
                    f"a division by {insn.value}: multiplying and shifting gives the same, "
                    "cheaper; a power of two needs a shift only"
                )
                yield subject.finding("constant-division", analysis, at, message)


def old_helper(subject: LintSubject) -> Iterator[LintFinding]:
    """A helper that does not say whose memory it reads."""
    if subject.settings.kernel < (5, 5):
        return
    for analysis, at, helper, _ in subject.calls():
        if helper in {helpers.PROBE_READ, helpers.PROBE_READ_STR}:
            suffix = "_str" if helper == helpers.PROBE_READ_STR else ""
            message = (
                f"{helpers.READS[helper]} does not work on every architecture: use "
                f"bpf_probe_read_kernel{suffix} or bpf_probe_read_user{suffix}"
            )
            yield subject.finding("old-helper", analysis, at, message)


def single_call(subject: LintSubject) -> Iterator[LintFinding]:
    """A short static function is called once in each program that calls it."""
    local = {
        a.function.name
        for a in subject.analyses
        if a.function.local and len(a.function.instructions) <= SHORT
    }
    calls = [
        (name, analysis, at)
        for analysis in subject.analyses
        for at, name in analysis.function.calls()
    ]
    counts = Counter((name, analysis.function.name) for name, analysis, _ in calls)
    often = {name for (name, _), count in counts.items() if count > 1} | _address_taken(subject)
    for name, analysis, at in calls:
        if name in local - often and at not in analysis.function.looped:
            message = f"{name} is called once in each program: __always_inline spares the call"
            yield subject.finding("single-call", analysis, at, message)


def _address_taken(subject: LintSubject) -> set[str]:
    """Return the functions that are callbacks: they cannot be inlined."""
    return {
        symbol.name
        for analysis in subject.analyses
        for at, symbol in analysis.function.symbols.items()
        if symbol.function and analysis.function.instructions[at].code != CALL
    }

"""Rules about what is sent to user space, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs.flow import is_conditional
from pytest_bpf.lint import helpers
from pytest_bpf.lint.values import ends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.lint.findings import LintFinding
    from pytest_bpf.lint.subject import Analysis, LintSubject
    from pytest_bpf.lint.values import RegisterState

RING_BUFFER = (5, 8)
"""The kernel that has ring buffers."""


def late_filter(subject: LintSubject) -> Iterator[LintFinding]:
    """A program does costly work before it tells that it does not want the event."""
    for analysis in subject.analyses:
        function = analysis.function
        if not function.entry:
            continue
        for at, insn in enumerate(function.instructions):
            state = analysis.states[at]
            if state is None or not is_conditional(insn) or not _leaves(analysis, at):
                continue
            origin = _condition(analysis, at, state)
            if not origin or not all(_is_cheap(analysis, source) for source in origin):
                continue
            needed = _decides(analysis, at)  # a read that another condition needs is no waste
            calls = [c for c in sorted(state.called) if _cost(analysis, c) and c not in needed]
            if calls:
                _, line = function.place(calls[0])
                what = _cost(analysis, calls[0])
                where = f" in line {line}" if line else ""
                message = (
                    f"what is left out here has cost {what}{where} already; "
                    "the condition needs none of it: test it first"
                )
                yield subject.finding("late-filter", analysis, at, message)
                break


def _decides(analysis: Analysis, at: int) -> set[int]:
    """Return the calls and loads that conditions come from which can run before ``at``."""
    sources: set[int] = set()
    for branch, insn in enumerate(analysis.function.instructions):
        state = analysis.states[branch]
        if state and is_conditional(insn) and at in analysis.function.reached(branch):
            sources |= _condition(analysis, branch, state)
    return sources


def _leaves(analysis: Analysis, at: int) -> bool:
    """Say whether one side of a branch does nothing but return."""
    sides = [ends(analysis.function, target) for target in analysis.function.successors[at]]
    return any(sides) and not all(sides)


def _condition(analysis: Analysis, at: int, state: RegisterState) -> frozenset[int]:
    """Return the calls and loads that a condition comes from; none for that of a pointer."""
    insn = analysis.function.instructions[at]
    values = [state.registers[insn.to]]
    if insn.code & 8:
        values.append(state.registers[insn.of])
    if any(value.is_pointer for value in values):
        return frozenset()
    return frozenset().union(*(value.origin for value in values))


def _is_cheap(analysis: Analysis, at: int) -> bool:
    insn = analysis.function.instructions[at]
    if insn.code == 0x85:
        return insn.of == 0 and insn.value in helpers.CHEAP
    state = analysis.states[at]
    return state is not None and state.registers[insn.of].kind in {"context", "global", "stack"}


def _cost(analysis: Analysis, at: int) -> str:
    insn = analysis.function.instructions[at]
    is_helper = insn.of == 0 and at not in analysis.function.symbols
    return helpers.COSTLY.get(insn.value, "") if is_helper else ""


def unfiltered_output(subject: LintSubject) -> Iterator[LintFinding]:
    """Every run sends an event."""
    for analysis in subject.analyses:
        helper_calls = list(analysis.helper_calls())
        submits = any(helper == helpers.RINGBUF_SUBMIT for _, helper, _ in helper_calls)
        if not analysis.function.entry:
            continue
        for at, helper, _ in helper_calls:
            if helper not in helpers.OUTPUTS:
                continue
            if helper == helpers.RINGBUF_RESERVE and not submits:
                continue
            if _is_filtered(subject, analysis, at):
                continue
            message = (
                f"every run reaches {helpers.OUTPUTS[helper]}: filter, sample or add up in the "
                "kernel, and send what is left"
            )
            yield subject.finding("unfiltered-output", analysis, at, message)
            break


def _is_filtered(subject: LintSubject, analysis: Analysis, at: int) -> bool:
    """Say whether a branch on the way to an instruction can lead away from it."""
    function = analysis.function
    return any(
        at in function.reached(branch)
        and any(at != to and at not in function.reached(to) for to in function.successors[branch])
        and _is_choice(subject, analysis, branch)
        for branch, insn in enumerate(function.instructions)
        if is_conditional(insn)
    )


def _is_choice(subject: LintSubject, analysis: Analysis, at: int) -> bool:
    """Say whether a branch chooses between events: by a value, or by a key that a hash has."""
    state = analysis.states[at]
    if state is None or _condition(analysis, at, state):
        return True
    pointer = state.registers[analysis.function.instructions[at].to]
    return pointer.kind == "element" and subject.kind(pointer.name) not in helpers.INDEXED


def perf_buffer(subject: LintSubject) -> Iterator[LintFinding]:
    """Events go through a perf buffer where the kernel has ring buffers."""
    if subject.settings.kernel < RING_BUFFER:
        return
    seen = set()
    for analysis, at, helper, state in subject.calls():
        name = state.registers[2].name
        if helper == helpers.PERF_OUTPUT and name not in seen:
            seen.add(name)
            message = (
                f"{name or 'the map'!r} is a perf buffer; a ring buffer (since 5.8) keeps the "
                "order of all CPUs, and a write to it is cheaper"
            )
            yield subject.finding("perf-buffer", analysis, at, message)


def padding(subject: LintSubject) -> Iterator[LintFinding]:
    """Bytes that nobody wrote are sent to user space."""
    for analysis, at, helper, state in subject.calls():
        missing, total = _unwritten(analysis, helper, state)
        if missing:
            ranges = ", ".join(_ranges(missing))
            message = (
                f"bytes {ranges} of {total} that are sent were never written: set the padding "
                "to 0, or pack the struct"
            )
            yield subject.finding("padding", analysis, at, message)


def _unwritten(analysis: Analysis, helper: int, state: RegisterState) -> tuple[list[int], int]:
    registers = state.registers
    if helper == helpers.RINGBUF_SUBMIT and registers[1].kind == "record":
        reserve = analysis.states[registers[1].at]
        size = reserve.registers[2] if reserve else None
        region: object = registers[1].at
        start = 0
    elif helper == helpers.PERF_OUTPUT and registers[4].kind == "stack":
        size, region, start = registers[5], "stack", registers[4].offset
    elif helper == helpers.RINGBUF_OUTPUT and registers[2].kind == "stack":
        size, region, start = registers[3], "stack", registers[2].offset
    else:
        return [], 0
    if size is None or size.kind != "constant" or not 0 < size.offset <= 4096:
        return [], 0
    count = size.offset
    missing = [byte for byte in range(count) if (region, start + byte) not in state.written]
    return (missing if len(missing) < count else []), count


def _ranges(numbers: list[int]) -> Iterator[str]:
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            yield f"{start} to {previous}" if previous > start else str(start)
            start = number
        previous = number


def wake_up(subject: LintSubject) -> Iterator[LintFinding]:
    """Every event may wake the reader."""
    flags = {helpers.RINGBUF_SUBMIT: 2, helpers.RINGBUF_OUTPUT: 4}
    for analysis, at, helper, state in subject.calls():
        if helper in flags:
            value = state.registers[flags[helper]]
            if value.kind == "constant" and value.offset == 0:
                message = (
                    "each event wakes a reader that waits; where events are many, pass "
                    "BPF_RB_NO_WAKEUP and wake it now and then"
                )
                yield subject.finding("wake-up", analysis, at, message)

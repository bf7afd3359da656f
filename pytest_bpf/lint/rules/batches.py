"""Rules about events that are collected in a map, and sent together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs.flow import LDX, ST, STX, is_conditional
from pytest_bpf.lint import helpers
from pytest_bpf.lint.values import ANYWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.lint.findings import LintFinding
    from pytest_bpf.lint.subject import Analysis, LintSubject

DATA = {helpers.PERF_OUTPUT: 4, helpers.RINGBUF_OUTPUT: 2}
"""The register with what is sent, by helper."""


def batch_residue(subject: LintSubject) -> Iterator[LintFinding]:
    """A batch is sent when it is full, and nothing sends one that never gets full."""
    sites: dict[str, list[tuple[Analysis, int]]] = {}
    for analysis, at, helper, state in subject.calls():
        if helper in DATA:
            data = state.registers[DATA[helper]]
            if data.kind == "scalar":
                return  # of a callback, or of a function's argument: it may be any batch
            if data.kind == "element":
                sites.setdefault(data.name, []).append((analysis, at))
    for name, calls in sites.items():
        if all(_appends(analysis, name) for analysis, _ in calls):
            for analysis, at in calls:
                if _waits(analysis, name, at):
                    message = (
                        f"the events in {name!r} are sent when a batch is full, and by nothing "
                        "else: send what is left from a timer, or a program that user space runs"
                    )
                    yield subject.finding("batch-residue", analysis, at, message)
                    break


def _appends(analysis: Analysis, name: str) -> bool:
    """Say whether a function writes into elements of a map at places that it computes."""
    for at, insn in enumerate(analysis.function.instructions):
        state = analysis.states[at]
        if state is not None and insn.code & 7 in {ST, STX}:
            to = state.registers[insn.to]
            if to.kind == "element" and to.name == name and to.offset == ANYWHERE:
                return True
    return False


def _waits(analysis: Analysis, name: str, at: int) -> bool:
    """Say whether a condition decides about an output that was read from an element of the map."""
    function = analysis.function
    for branch, insn in enumerate(function.instructions):
        state = analysis.states[branch]
        if state is None or not is_conditional(insn) or at not in function.reached(branch):
            continue
        if all(at == to or at in function.reached(to) for to in function.successors[branch]):
            continue
        if any(_is_read_from(analysis, name, source) for source in _origin(analysis, branch)):
            return True
    return False


def _origin(analysis: Analysis, branch: int) -> frozenset[int]:
    state, insn = analysis.states[branch], analysis.function.instructions[branch]
    return state.registers[insn.to].origin if state is not None else frozenset()


def _is_read_from(analysis: Analysis, name: str, at: int) -> bool:
    state, insn = analysis.states[at], analysis.function.instructions[at]
    if state is None or insn.code & 7 != LDX:
        return False
    source = state.registers[insn.of]
    return source.kind == "element" and source.name == name

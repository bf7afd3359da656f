"""How long an agent takes with one event, again and again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_bpf.agents.agent import Agent
    from pytest_bpf.agents.buffers import Positions
    from pytest_bpf.kernel.info import ProgramInfo

LONGEST = 1.0
"""Seconds after which an event that was not consumed counts as having taken that long."""


@dataclass(frozen=True)
class Single:
    """What one event did: ``ns`` until it had arrived, and the ``stored`` bytes it took up."""

    ns: int
    stored: int


def singles(
    agent: Agent,
    watched: Sequence[Positions],
    make: Callable[[int], object],
    *,
    samples: int,
    seconds: float,
) -> list[Single]:
    """Return what each of ``samples`` single events did, those of which a program ran.

    An event that goes into a buffer has arrived when the agent has read the buffer that far; it
    counts from before it was made, so what is returned is at least the truth. One that goes into
    no buffer has arrived when the programs have run: that takes their own time, which the kernel's
    statistics tell; they must be on. Ends after ``seconds`` with what it has.
    """
    found: list[Single] = []
    deadline = time.monotonic() + seconds
    for number in range(samples):
        if number and time.monotonic() > deadline:
            break
        before, told = [buffer.produced for buffer in watched], _told(agent)
        begun = time.perf_counter_ns()
        make(1)
        until = [buffer.produced for buffer in watched]
        if until != before:
            found.append(Single(_consumed(watched, until, begun), sum(until) - sum(before)))
        else:
            found += [Single(ns, 0) for ns in _run_time(told, _told(agent))]
    return found


def drained(watched: Sequence[Positions], seconds: float) -> bool:
    """Wait until the buffers are read to where they are now; say whether they were."""
    until = [buffer.produced for buffer in watched]
    deadline = time.monotonic() + seconds
    while any(b.consumed < end for b, end in zip(watched, until, strict=True)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _consumed(watched: Sequence[Positions], until: Sequence[int], begun: int) -> int:
    while True:
        passed = time.perf_counter_ns() - begun
        if passed > LONGEST * 1e9 or all(
            buffer.consumed >= end for buffer, end in zip(watched, until, strict=True)
        ):
            return passed


def _told(agent: Agent) -> dict[str, ProgramInfo]:
    return {name: program.info for name, program in agent.programs.items()}


def _run_time(before: Mapping[str, ProgramInfo], after: Mapping[str, ProgramInfo]) -> list[int]:
    """Return the time of one run of each program that ran in between; none when none ran."""
    times = [
        (after[name].run_time_ns - then.run_time_ns) / (after[name].run_cnt - then.run_cnt)
        for name, then in before.items()
        if after[name].run_cnt > then.run_cnt
    ]
    return [round(sum(times))] if times else []

"""How long an agent takes with one event, again and again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_bpf.agents.buffers import Positions
    from pytest_bpf.agents.subject import Subject
    from pytest_bpf.kernel.sys.info import ProgramInfo

LONGEST = 1.0
"""Seconds after which an event that was not consumed counts as having taken that long."""


@dataclass(frozen=True)
class SingleEvent:
    """What one event did: ``ns`` until it had arrived, and the ``stored`` bytes it took up."""

    ns: int
    stored: int


def single_events(
    agent: Subject,
    buffers: Sequence[Positions],
    make: Callable[[int], object],
    *,
    samples: int,
    seconds: float,
) -> list[SingleEvent]:
    """Return what each of ``samples`` single events did, those of which a program ran.

    An event that goes into a buffer has arrived when the agent has read the buffer that far; it
    counts from before it was made, so what is returned is at least the truth. One that goes into
    no buffer has arrived when the programs have run: that takes their own time, which the kernel's
    statistics tell; they must be on. Ends after ``seconds`` with what it has.
    """
    events: list[SingleEvent] = []
    deadline = time.monotonic() + seconds
    for number in range(samples):
        if number and time.monotonic() > deadline:
            break
        before, info = [buffer.produced for buffer in buffers], _infos(agent)
        start = time.perf_counter_ns()
        make(1)
        until = [buffer.produced for buffer in buffers]
        if until != before:
            events.append(
                SingleEvent(_wait_consumed(buffers, until, start), sum(until) - sum(before))
            )
        else:
            events += [SingleEvent(ns, 0) for ns in _run_time(info, _infos(agent))]
    return events


def wait_drained(buffers: Sequence[Positions], seconds: float) -> bool:
    """Wait until the buffers are read to where they are now; say whether they were."""
    until = [buffer.produced for buffer in buffers]
    deadline = time.monotonic() + seconds
    while any(b.consumed < end for b, end in zip(buffers, until, strict=True)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _wait_consumed(buffers: Sequence[Positions], until: Sequence[int], start: int) -> int:
    while True:
        elapsed = time.perf_counter_ns() - start
        if elapsed > LONGEST * 1e9 or all(
            buffer.consumed >= end for buffer, end in zip(buffers, until, strict=True)
        ):
            return elapsed


def _infos(agent: Subject) -> dict[str, ProgramInfo]:
    return {name: program.info for name, program in agent.programs.items()}


def _run_time(before: Mapping[str, ProgramInfo], after: Mapping[str, ProgramInfo]) -> list[int]:
    """Return the time of one run of each program that ran in between; none when none ran."""
    times = [
        (after[name].run_time_ns - then.run_time_ns) / (after[name].run_cnt - then.run_cnt)
        for name, then in before.items()
        if after[name].run_cnt > then.run_cnt
    ]
    return [round(sum(times))] if times else []

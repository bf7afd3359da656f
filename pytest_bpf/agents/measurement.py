"""What a load makes an agent do: time, runs, bytes in its buffers, lost events."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pytest_bpf.agents.single_events import wait_drained
from pytest_bpf.costs.instruments.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.agents.buffers import Positions
    from pytest_bpf.agents.load import Load
    from pytest_bpf.agents.single_events import SingleEvent
    from pytest_bpf.agents.subject import Subject
    from pytest_bpf.costs.instruments.meter import Batch

LOST = r"(?i)\b(?:lost|dropped)\D{0,3}(\d+)\s+(?:\w+\s+)?(?:events?|samples?|records?)"
"""How bpftrace ("Lost 12 events"), BCC ("Possibly lost 12 samples") and others say it."""

DRAIN_TIMEOUT = 1.0
"""Seconds an agent has after the load to read what is in its buffers."""

SAMPLERS = frozenset({"perf_event"})
"""Types of programs that run by themselves, whatever the load is."""


@dataclass(frozen=True)
class Conditions:
    """Under what an agent is measured; see `Agent.under`."""

    load: Load
    delivered: Callable[[], float] | None
    lost: str | None
    samples: int


@dataclass(frozen=True)
class Slice:
    """A part of the load: its seconds, and the shares of one CPU of processes and programs."""

    seconds: float
    processes: float
    programs: float


@dataclass(frozen=True)
class Counts:
    """What the load as a whole did.

    ``runs`` are those of each program, ``missed`` the runs that the kernel left out, ``stored`` the
    bytes put into buffers. ``unknown`` says why nobody can tell what was lost; empty when one can.
    """

    slices: tuple[Slice, ...]
    runs: dict[str, int]
    missed: int
    stored: int
    reported_lost: float
    arrived: float | None
    unknown: str


def count(
    agent: Subject, conditions: Conditions, buffers: Sequence[Positions], unseen: int = 0
) -> Counts:
    """Run the load and count; the kernel's statistics are on meanwhile.

    ``unseen`` is how many buffers the agent has besides ``buffers``.
    """
    printed = agent.printed.position
    arrived = conditions.delivered() if conditions.delivered else 0.0
    stored = sum(buffer.produced for buffer in buffers)
    with agent.printed.keep():
        with Meter(agent.programs, agent.cpu_seconds) as meter:
            for _ in conditions.load.run():
                meter.end()
        caught_up = wait_drained(buffers, DRAIN_TIMEOUT)
        output, gone = agent.printed.since(printed)
    unknown = ""
    if not caught_up:
        unknown = f"{DRAIN_TIMEOUT:g} s after the load it had not read all that is in its buffers"
    elif gone:
        unknown = f"the first {gone} bytes that it printed under the load are not kept"
    elif unseen:
        buffers_of_it = "a perf buffer" if unseen == 1 else f"{unseen} perf buffers"
        unknown = f"it has {buffers_of_it} whose descriptor is closed: nobody else sees what is in"
    readings = [(name, batch.programs[name]) for batch in meter.batches for name in agent.programs]
    return Counts(
        slices=tuple(_slice(meter, batch) for batch in meter.batches),
        runs={
            name: sum(reading.runs for program, reading in readings if program == name)
            for name in agent.programs
        },
        missed=sum(reading.missed for _, reading in readings),
        stored=sum(buffer.produced for buffer in buffers) - stored,
        reported_lost=reported_lost(output, conditions.lost or LOST),
        arrived=conditions.delivered() - arrived if conditions.delivered else None,
        unknown=unknown,
    )


def _slice(meter: Meter, batch: Batch) -> Slice:
    spent = 0.0
    for name, program in meter.programs.items():
        reading = batch.programs[name]
        empty = meter.empty_of(program) or 0.0
        spent += max(0.0, reading.run_time_ns - reading.runs * empty)
    return Slice(batch.seconds, batch.consumer / batch.seconds, spent / (batch.seconds * 1e9))


def reported_lost(output: str, pattern: str) -> float:
    """Return the sum of the numbers that a pattern finds, in its group."""
    return sum(float(match[1]) for match in re.finditer(pattern, output))


def lost(
    agent: Subject, events: int, counts: Counts, singles: Sequence[SingleEvent]
) -> tuple[float | None, str]:
    """Return how many events were lost, or None and why that is unknown.

    It is what ``delivered`` did not count. Without ``delivered`` it is the greatest of three: what
    the kernel missed plus what the agent says it lost; the events for which no program ran; and the
    events for which a buffer had no room (the bytes of all against the bytes of one).
    """
    if counts.arrived is not None:
        return max(events - counts.arrived, 0.0), ""
    if counts.unknown:
        return None, counts.unknown
    runs = [n for name, n in counts.runs.items() if agent.programs[name].type not in SAMPLERS]
    estimates = [counts.reported_lost + counts.missed, events - max(runs, default=events)]
    size = median([single.stored for single in singles] or [0])
    if size:
        estimates.append(events - counts.stored / size)
    return float(max(0.0, *estimates)), ""

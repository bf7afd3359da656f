"""Counting what a load makes an agent do: time, runs, bytes in its buffers, what was lost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pytest_bpf.agents.delays import drained
from pytest_bpf.costs.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.agents.agent import Agent
    from pytest_bpf.agents.buffers import Positions
    from pytest_bpf.agents.delays import Single
    from pytest_bpf.agents.load import Load
    from pytest_bpf.costs.meter import Batch

LOST = r"(?i)\b(?:lost|dropped)\D{0,3}(\d+)\s+(?:\w+\s+)?(?:events?|samples?|records?)"
"""How bpftrace ("Lost 12 events"), BCC ("Possibly lost 12 samples") and others say it."""

DRAINING = 1.0
"""Seconds an agent has after the load to read what is in its buffers."""

UNDRIVEN = frozenset({"perf_event"})
"""Types of programs that run by themselves, whatever the load is."""


@dataclass(frozen=True)
class Asked:
    """How a cost is asked for; see `Agent.under`."""

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
class Counted:
    """What the load as a whole did.

    ``runs`` are those of each program, ``missed`` is how many of all the kernel left out,
    ``stored`` the bytes put into buffers.
    """

    slices: tuple[Slice, ...]
    runs: dict[str, int]
    missed: int
    stored: int
    said_lost: float
    arrived: float | None
    caught_up: bool


def count(agent: Agent, asked: Asked, watched: Sequence[Positions]) -> Counted:
    """Put an agent under load; the kernel's statistics are on meanwhile."""
    printed = agent.printed.position
    had = asked.delivered() if asked.delivered else 0.0
    stored = sum(buffer.produced for buffer in watched)
    with Meter(agent.programs, agent.cpu_seconds) as meter:
        for _ in asked.load.run():
            meter.end()
    caught_up = drained(watched, DRAINING)
    readings = [(name, batch.programs[name]) for batch in meter.batches for name in agent.programs]
    return Counted(
        slices=tuple(_slice(meter, batch) for batch in meter.batches),
        runs={
            name: sum(reading.runs for whose, reading in readings if whose == name)
            for name in agent.programs
        },
        missed=sum(reading.missed for _, reading in readings),
        stored=sum(buffer.produced for buffer in watched) - stored,
        said_lost=said_lost(agent.printed.since(printed), asked.lost or LOST),
        arrived=asked.delivered() - had if asked.delivered else None,
        caught_up=caught_up,
    )


def _slice(meter: Meter, batch: Batch) -> Slice:
    spent = 0.0
    for name, program in meter.programs.items():
        reading = batch.programs[name]
        empty = meter.empty_of(program) or 0.0
        spent += max(0.0, reading.run_time_ns - reading.runs * empty)
    return Slice(batch.seconds, batch.consumer / batch.seconds, spent / (batch.seconds * 1e9))


def said_lost(output: str, pattern: str) -> float:
    """Return the sum of the numbers that a pattern finds, in its group."""
    return sum(float(found[1]) for found in re.finditer(pattern, output))


def lost(
    agent: Agent, events: int, counted: Counted, one_by_one: Sequence[Single]
) -> tuple[float | None, str]:
    """Return how many events were lost, or None and why that cannot be told.

    Whoever knows what arrived says it. Else it is the most of: what the kernel left out and the
    agent says it lost; the events that no program ran for; those that found no room, by the bytes
    that one takes up and all did.
    """
    if counted.arrived is not None:
        return max(events - counted.arrived, 0.0), ""
    if not counted.caught_up:
        return None, f"{DRAINING:g} s after the load it had not read all that is in its buffers"
    driven = [n for name, n in counted.runs.items() if agent.programs[name].type not in UNDRIVEN]
    known = [counted.said_lost + counted.missed, events - max(driven, default=events)]
    size = median([single.stored for single in one_by_one] or [0])
    if size:
        known.append(events - counted.stored / size)
    return float(max(0.0, *known)), ""

"""How long events take from the program to their consumer, and whose time that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_bpf.costs.figures.figure import Figure
from pytest_bpf.errors import BpfError
from pytest_bpf.errors.arguments import checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from pytest_bpf.objects import EventArray, EventList

Z95 = 1.959964
"""Half of the width of a normal distribution's middle 95 %, in standard deviations."""

SHARES = (0.5, 0.95, 0.99)


class Bounds(NamedTuple):
    """Where the true value lies with 95 % confidence, in ns."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Delays:
    """``count`` delays in ns: the median, the 95th and 99th percentile, the longest.

    A percentile is a delay that was seen: the one that so many percent do not exceed.
    ``bounds`` has those of ``p50``, ``p95`` and ``p99``: the delays whose ranks a binomial
    distribution gives, whatever the delays' own is. With too few events the upper ends at ``max``.
    """

    count: int
    p50: int
    p95: int
    p99: int
    max: int
    bounds: tuple[Bounds, ...] = field(repr=False)

    @classmethod
    def summarize(cls, delays: np.ndarray[Any, Any]) -> Delays:
        """Summarise at least one delay."""
        ordered = delays.copy()
        ordered.sort()
        count = len(ordered)
        p50, p95, p99 = (int(ordered[_index(count * share, count)]) for share in SHARES)
        bounds = tuple(_bounds(ordered, share) for share in SHARES)
        return cls(count, p50, p95, p99, int(ordered[-1]), bounds)


@dataclass(frozen=True)
class Latency(Delays):
    """From an event's stamp to the moment its consumer had it, in ns; made by `latency`.

    ``wake_up`` is the part in which the consumer slept until the event woke it: the kernel's and
    the scheduler's. ``consumer`` is the rest, the consumer's own delay: it was busy, or looked at
    intervals, or copied. For each event the two parts add up to the whole; their percentiles do
    not.
    """

    wake_up: Delays
    consumer: Delays

    def figures(self, subject: str = "") -> tuple[Figure, ...]:
        """Return ``latency_p50``, ``_p95``, ``_p99``, ``_max`` and ``consumer_p99`` of a map."""
        percentiles = [
            (f"latency_p{percent}", getattr(self, f"p{percent}"), bounds)
            for percent, bounds in zip((50, 95, 99), self.bounds, strict=True)
        ]
        percentiles.append(("latency_max", self.max, Bounds(self.max, self.max)))
        percentiles.append(("consumer_p99", self.consumer.p99, self.consumer.bounds[2]))
        return tuple(
            Figure(name, subject, value, *bounds, "clock") for name, value, bounds in percentiles
        )

    def __str__(self) -> str:
        return (
            f"p50 {self.p50} ns, p95 {self.p95} ns, p99 {self.p99} ns, max {self.max} ns of "
            f"{self.count} events; p99 of the consumer's own delay {self.consumer.p99} ns"
        )


@checked
def latency(events: EventList | EventArray, stamp: str) -> Latency:
    """Return how long ``events`` took from their member ``stamp`` until they were read.

    The program sets it to ``bpf_ktime_get_ns()``, which is Python's ``time.monotonic_ns()``.
    Raises `BpfError` when there is no event, no such member, or when the member is no such time.
    """
    return latency_of([events], stamp)


def latency_of(several: Iterable[EventList | EventArray], stamp: str) -> Latency:
    """Return the same of the events of several readings together."""
    import numpy as np  # noqa: PLC0415 (90 ms, and only for whoever measures)

    read_events = [events for events in several if len(events)]
    if not read_events:
        raise BpfError("no event was read, so there is no latency to compute")
    stamps = np.concatenate([np.array(_stamps(events, stamp), np.int64) for events in read_events])
    readings = [reading for events in read_events for reading in events.readings]
    counts = [reading.events for reading in readings]
    asleep, woken, read = (
        np.repeat(np.array(times, np.int64), counts)
        for times in zip(*((r.asleep, r.woken, r.read) for r in readings), strict=True)
    )
    whole = read - stamps
    wrong = np.flatnonzero((stamps <= 0) | (whole < 0))
    if wrong.size:
        first = int(wrong[0])
        raise BpfError(
            f"{wrong.size} of {stamps.size} events have no time before their reading in "
            f"{stamp!r} (event {first}: {stamps[first]}, read at {read[first]} ns): set it to "
            "bpf_ktime_get_ns() in every event"
        )
    slept = np.clip(woken - np.maximum(stamps, asleep), 0, None)
    return _latency(whole, slept)


def _stamps(events: EventList | EventArray, stamp: str) -> Any:
    try:
        if isinstance(events, list):
            return [getattr(event, stamp) for event in events]
        return events.array[stamp]
    except (AttributeError, IndexError, ValueError) as error:
        raise BpfError(f"no latency by the stamp {stamp!r}: {error}") from None


def _latency(whole: np.ndarray[Any, Any], slept: np.ndarray[Any, Any]) -> Latency:
    parts = vars(Delays.summarize(whole))
    return Latency(
        **parts, wake_up=Delays.summarize(slept), consumer=Delays.summarize(whole - slept)
    )


def _bounds(ordered: np.ndarray[Any, Any], share: float) -> Bounds:
    count = len(ordered)
    middle = count * share
    width = Z95 * sqrt(middle * (1 - share))
    lower, upper = _index(middle - width, count), _index(middle + width + 1, count)
    return Bounds(float(ordered[lower]), float(ordered[upper]))


def _index(position: float, count: int) -> int:
    """Return the index of a position that is counted from 1, or the nearest that there is."""
    return min(max(ceil(position), 1), count) - 1

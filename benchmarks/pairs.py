"""Measuring several ways of doing the same in one run.

The ways take turns, and who begins changes every round, so that the moods of the machine hit them
alike. What is compared is medians; how far to trust their ratio is found by drawing rounds again.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

RESAMPLES = 4000
SEED = 1


class Laps(dict[str, float]):
    """Milliseconds by step, of one run; a step that is timed twice is added up."""

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        """Time what is in the block."""
        start = time.perf_counter()
        yield
        self[step] = self.get(step, 0.0) + (time.perf_counter() - start) * 1000

    def total(self) -> float:
        """Return the sum of all steps."""
        return sum(self.values())


@dataclass(frozen=True)
class Spread:
    """The least of some values, their quartiles and how many they are."""

    least: float
    low: float
    median: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        low, median, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        return cls(min(values), low, median, high, len(values))


@dataclass(frozen=True)
class Estimate:
    """A figure computed from medians, and the interval that holds it with 95 % confidence."""

    value: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Estimate how many times ``theirs`` the median of ``ours`` is; entry i is round i of both."""
    return _estimate(ours, theirs, np.divide)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Estimate how much more ``ours`` takes than ``theirs``: the median of the rounds' differences.

    What slows a round down slows both, and cancels.
    """
    more = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    return _estimate(more, [0.0] * len(more), np.subtract)


def _estimate(
    ours: Sequence[float],
    theirs: Sequence[float],
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Estimate:
    """Compare medians, and those of rounds drawn again with replacement (the bootstrap)."""
    a, b = np.asarray(ours), np.asarray(theirs)
    drawn = np.random.default_rng(SEED).integers(0, len(a), (RESAMPLES, len(a)))
    compared = compare(np.median(a[drawn], axis=1), np.median(b[drawn], axis=1))
    low, high = np.quantile(compared, (0.025, 0.975))
    return Estimate(float(compare(np.median(a), np.median(b))), float(low), float(high))


def take_turns(
    ways: Mapping[str, Callable[[], Laps]], rounds: int, warm_up: int = 2
) -> dict[str, list[Laps]]:
    """Run each way once a round, after ``warm_up`` rounds that do not count."""
    measured: dict[str, list[Laps]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(warm_up + rounds):
        begin = number % len(names)
        for name in names[begin:] + names[:begin]:
            laps = ways[name]()
            if number >= warm_up:
                measured[name].append(laps)
    return measured

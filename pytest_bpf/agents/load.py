"""A stated load: so many events a second, slice by slice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import StimulusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLICES = 10
"""How many slices a load has: what is measured in each tells how sure the whole is."""

TICK = 0.01
"""Seconds between two bursts of a slice."""


@dataclass(frozen=True)
class Load:
    """``make(count)`` makes so many events; ``rate`` of them a second for ``seconds``."""

    make: Callable[[int], object]
    rate: float
    seconds: float

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.seconds > 0):
            raise StimulusError(
                f"a load of {self.rate:g} events a second for {self.seconds:g} s makes none; "
                "both must be positive"
            )

    @property
    def count(self) -> int:
        """How many events it makes in all, at least one a slice."""
        return max(SLICES, round(self.rate * self.seconds))

    def run(self) -> Iterator[int]:
        """Make the events, and yield after each slice how many it had.

        The pace is kept against the clock: a burst that is late does not delay those after it. A
        machine too slow for the rate makes all events, in more time.
        """
        begun, made, ticks = time.monotonic(), 0, max(SLICES, round(self.seconds / TICK))
        before = 0
        for tick in range(1, ticks + 1):
            due = self.count * tick // ticks
            if due > made:
                self.make(due - made)
                made = due
            left = begun + self.seconds * tick / ticks - time.monotonic()
            if left > 0:
                time.sleep(left)
            if tick * SLICES // ticks > (tick - 1) * SLICES // ticks:
                yield made - before
                before = made

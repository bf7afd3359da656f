"""Sending no faster than the receiving end can take, without waiting long for what is lost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import StimulusError
from pytest_bpf.kernel.sys.turns import wait_for_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.traffic.endpoint import Endpoint

BURST = 128
"""Packets sent before looking whether they arrived: half a veth's receive ring (256), and far
below the queue between softirqs (``net.core.netdev_max_backlog``, 1000)."""

SETTLE = 0.05
"""Seconds of silence, besides two round trips of delay, after which what is missing counts as
lost. A veth delivers within the sender's own system call: of 50,000 bursts on two busy CPUs not one
had to be waited for; this is for what a test puts in between."""

BETWEEN = 0.001
"""The same between two bursts, where a path that drops everything should not cost much."""


TOGETHER = 0.001
"""Seconds of a rate that are sent in one burst."""


def check_rate(call: str, rate: float | None) -> None:
    """Raise `StimulusError` for a rate that is none."""
    if rate is None:
        return
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < float("inf"):
        raise StimulusError(f"{call}: rate is {rate!r} a second; it must be positive, or None")


def bursts(count: int, most: int, rate: float | None) -> Iterator[tuple[int, int]]:
    """Yield the first and the last message, exclusive, of each burst, once its time has come.

    ``most`` is the size of a burst without a rate.
    """
    burst = most if rate is None else max(1, min(most, int(rate * TOGETHER)))
    begin = time.perf_counter()
    for first in range(0, count, burst):
        if rate is not None:
            wait_until(begin + first / rate)
        yield first, min(first + burst, count)


def schedule(count: int, rate: float | None) -> list[float]:
    """Return when each of ``count`` messages leaves, in seconds after the first; empty without."""
    if rate is None:
        return []
    burst = max(1, int(rate * TOGETHER))
    return [number // burst * burst / rate for number in range(count)]


def wait_until(moment: float) -> None:
    """Sleep until ``time.perf_counter()`` is at ``moment``."""
    rest = moment - time.perf_counter()
    if rest > 0:
        time.sleep(rest)


@dataclass(frozen=True)
class Silence:
    """Seconds without an arrival to wait for: after a burst, and in the end."""

    between: float
    final: float


def silence(one: Endpoint, other: Endpoint, timeout: float | None) -> Silence:
    """Return the `Silence` of a path; ``timeout`` is the final one if it is given."""
    round_trips = 2 * (one.delay + other.delay)
    final = SETTLE + round_trips if timeout is None else timeout
    if not isinstance(final, (int, float)) or not 0 < final < float("inf"):
        raise StimulusError(f"timeout is {final!r} seconds; it must be positive and finite")
    return Silence(min(BETWEEN + round_trips, final), final)


class Pace:
    """Waits for the arrivals of one burst after another.

    ``arrived()`` takes in what is there and returns the total so far; ``wait(seconds)`` returns
    when something may have arrived, or after that time.
    """

    def __init__(
        self, arrived: Callable[[], int], wait: Callable[[float], None], silence: Silence
    ) -> None:
        self._arrived = arrived
        self._wait = wait
        self._silence = silence
        self._seen = 0
        self._given_up = 0
        self._begun = self._latest = time.perf_counter()

    @property
    def seconds(self) -> float:
        """From the beginning to the last send or the last arrival noticed, whichever was later."""
        return self._latest - self._begun

    def burst(self, sent: int) -> None:
        """Wait, after a send, until ``sent`` messages in all have arrived or are given up."""
        self._latest = time.perf_counter()
        self._await(sent - self._given_up, self._silence.between)
        self._given_up = max(sent - self._seen, 0)

    def look(self) -> None:
        """Note a send at a rate, which goes on whatever has arrived: wait for nothing."""
        self._latest = time.perf_counter()
        self._look()

    def finish(self, sent: int) -> None:
        """Wait for all that is missing; on a busy machine also for those that bring it."""
        self._await(sent, self._silence.final)
        if self._seen < sent:
            wait_for_turns()
            self._await(sent, self._silence.between)

    def _await(self, expected: int, patience: float) -> None:
        silent_since = time.perf_counter()
        while self._look() < expected:
            silent_since = max(silent_since, self._latest)
            remaining = silent_since + patience - time.perf_counter()
            if remaining <= 0:
                return
            self._wait(remaining)

    def _look(self) -> int:
        arrived = self._arrived()
        if arrived > self._seen:
            self._seen, self._latest = arrived, time.perf_counter()
        return self._seen

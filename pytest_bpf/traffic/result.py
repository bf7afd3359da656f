"""The result of traffic, and the check of its arguments."""

from __future__ import annotations

import errno
import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import NotMeasuredError, StimulusError, ValueTypeError
from pytest_bpf.kernel.layers.buffers import to_bytes as packet_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


Frame = bytes
"""A frame as it was sent."""


@dataclass(frozen=True)
class TrafficResult:
    """How many messages were sent, and how many arrived.

    ``sent``: messages tried. ``received``: messages that arrived, or with ``echo`` (and for a
    ping) replies that came back. ``bytes`` and ``received_bytes``: payload the sender's kernel
    took, and payload that arrived. ``received_frames``: of frames and recordings, those that
    arrived, in the order of arrival. ``seconds``: from the first send to the last send or
    arrival, whichever was later.
    ``errors``: the errors of the sender's own system calls, counted by name: ``{"EPERM": 1000}``
    when a cgroup program refuses to send. ``connections``: TCP connections established.
    ``rtts``: round trip of each ping or request that was answered, in seconds, in the order of
    sending. ``handshakes``: how long each TCP connection of requests took, in seconds.
    """

    sent: int
    received: int
    bytes: int
    received_bytes: int
    seconds: float
    errors: Mapping[str, int] = field(default_factory=dict)
    connections: int = 0
    rtts: tuple[float, ...] = ()
    handshakes: tuple[float, ...] = ()
    received_frames: list[Frame] = field(default_factory=list, repr=False)

    @property
    def lost(self) -> int:
        """Messages that did not arrive (negative where something duplicates them)."""
        return self.sent - self.received

    def rtt(self, percent: float) -> float:
        """Return a percentile of ``rtts`` in seconds: ``rtt(99)`` is what 99 % do not exceed.

        Raises `NotMeasuredError` where no round trip was measured.
        """
        if not self.rtts:
            raise NotMeasuredError(
                "no round trip was measured: use ping(), udp(answers=True) or tcp(answers=True), "
                "and look at received"
            )
        return _percentile(self.rtts, percent)

    def handshake(self, percent: float) -> float:
        """Return a percentile of ``handshakes`` in seconds.

        Raises `NotMeasuredError` where no connection of requests was made.
        """
        if not self.handshakes:
            raise NotMeasuredError(
                "no handshake was measured: use tcp(answers=True), and look at connections"
            )
        return _percentile(self.handshakes, percent)

    @property
    def rate(self) -> float:
        """Messages sent a second; `NotMeasuredError` where it took no time."""
        if self.seconds <= 0:
            raise NotMeasuredError("nothing was sent, so there is no rate")
        return self.sent / self.seconds

    @property
    def bits_per_second(self) -> float:
        """Payload that arrived, in bits a second; `NotMeasuredError` where it took no time."""
        if self.seconds <= 0:
            raise NotMeasuredError("nothing was sent, so there is no rate")
        return 8 * self.received_bytes / self.seconds


def _percentile(values: tuple[float, ...], percent: float) -> float:
    if not 0 <= percent <= 100:
        raise StimulusError(f"a percentile is from 0 to 100, not {percent!r}")
    return sorted(values)[max(math.ceil(percent / 100 * len(values)) - 1, 0)]


CANNOT = {
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
    errno.EINVAL,
    errno.EMSGSIZE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENODEV,
    errno.ENXIO,
}
"""Errors of a send that can never work. All others are counted in the result."""


class Refusals(Counter[str]):
    """Sends that the sender's own kernel refused, counted by the name of the error."""

    def add(self, error: OSError, action: str) -> None:
        """Count ``error``; raise `StimulusError` when ``action`` can never work."""
        code = error.errno or 0
        if code in CANNOT:
            raise StimulusError(f"{action} cannot be done: {error.strerror}") from error
        self[errno.errorcode.get(code, str(code))] += 1

    def offer(self, send: Callable[[], object], times: int, action: str) -> None:
        """Call ``send`` that many times and count the refused calls."""
        for _ in repeat(None, times):
            try:
                send()
            except OSError as error:
                self.add(error, action)


def check_range(quantity: str, value: int, low: int, high: int | None = None) -> None:
    """Raise `StimulusError` unless ``value`` is an integer from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise StimulusError(f"{quantity} is {value!r}; it must be an integer")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"{low} to {high}"
        raise StimulusError(f"{quantity} is {value}; it must be {limits}")


def check_place(call: str, name: str, place: object, attribute: str, noun: str) -> None:
    """Raise `StimulusError` unless ``place`` is None or has ``attribute``, as ``noun`` does."""
    if place is not None and not hasattr(place, attribute):
        raise StimulusError(f"{call}: {name} is {place!r}; it must be {noun}")


def to_bytes(name: str, value: Any) -> bytes:
    """Return bytes, or the bytes of a packet such as scapy's; raise `StimulusError` for others."""
    try:
        return packet_bytes(value, name)
    except ValueTypeError as error:
        raise StimulusError(str(error)) from None

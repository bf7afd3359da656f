"""The value that every kind of traffic returns, and the limits of what may be asked."""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING

from pytest_bpf.errors import StimulusError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Sent:
    """What was sent and what came of it.

    ``sent``: messages tried. ``received``: messages that arrived, or with ``echo`` (and for a
    ping) replies that came back. ``bytes`` and ``received_bytes``: payload the sender's kernel
    took, and payload that arrived. ``seconds``: from the first send to the last send
    or arrival, whichever was later.
    ``errors``: what the sender's own kernel answered, counted by name, as in ``{"EPERM": 1000}``
    when a cgroup program refuses. ``connections``: TCP connections established. ``rtts``: round
    trip of each ping that was answered, in seconds, in the order of sending.
    """

    sent: int
    received: int
    bytes: int
    received_bytes: int
    seconds: float
    errors: Mapping[str, int] = field(default_factory=dict)
    connections: int = 0
    rtts: tuple[float, ...] = ()

    @property
    def lost(self) -> int:
        """Messages that did not arrive (negative where something duplicates them)."""
        return self.sent - self.received


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
"""What a sender's kernel answers when the request makes no sense there; all else is a finding."""


class Refusals(Counter[str]):
    """Sends that the sender's own kernel turned away, counted by the name of the error."""

    def add(self, error: OSError, doing: str) -> None:
        """Count ``error``; raise `StimulusError` when it says that ``doing`` cannot work at all."""
        code = error.errno or 0
        if code in CANNOT:
            raise StimulusError(f"{doing} cannot be done: {error.strerror}") from error
        self[errno.errorcode.get(code, str(code))] += 1

    def offer(self, send: Callable[[], object], times: int, doing: str) -> None:
        """Call ``send`` that many times and count those that were turned away."""
        for _ in repeat(None, times):
            try:
                send()
            except OSError as error:
                self.add(error, doing)


def within(what: str, value: int, low: int, high: int | None = None) -> None:
    """Raise `StimulusError` unless ``value`` is an integer from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise StimulusError(f"{what} is {value!r}; it must be an integer")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"{low} to {high}"
        raise StimulusError(f"{what} is {value}; it must be {limits}")

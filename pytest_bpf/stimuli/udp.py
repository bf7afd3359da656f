"""UDP: datagrams in bursts, each burst received before the next leaves."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.stimuli.ends import widen
from pytest_bpf.stimuli.pace import BURST, Pace
from pytest_bpf.stimuli.sent import Refusals, Sent

if TYPE_CHECKING:
    from pytest_bpf.stimuli.ends import UdpEnd
    from pytest_bpf.stimuli.pace import Silence

FRAGMENT = 1480
"""Payload of one IPv4 packet at an MTU of 1500 bytes."""


class Replies:
    """Counts what comes back on a sender's socket."""

    def __init__(self, sender: socket.socket) -> None:
        self.sender = sender
        self.received = 0
        self.received_bytes = 0
        self._buffer = bytearray(1 << 16)
        widen(sender)

    def drain(self) -> int:
        """Read all that is queued; return the number of replies since the beginning."""
        with suppress(BlockingIOError):
            while True:
                size = self.sender.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
                self.received += 1
                self.received_bytes += size
        return self.received


def exchange(
    sender: socket.socket,
    end: UdpEnd,
    payload: bytes,
    count: int,
    silence: Silence,
) -> Sent:
    """Send ``payload`` to ``end`` ``count`` times and count what reaches it.

    With an echoing end the replies are counted instead. Both sockets are read by this thread,
    between bursts, so that neither of their buffers can overflow.
    """
    address = (end.address, end.port)
    replies = Replies(sender)
    tally: UdpEnd | Replies = replies if end.echo else end
    poll = select.poll()
    poll.register(end.socket, select.POLLIN)
    if end.echo:
        poll.register(sender, select.POLLIN)

    def arrived() -> int:
        end.drain()
        return tally.drain()

    def wait(seconds: float) -> None:
        poll.poll(seconds * 1000)

    pace = Pace(arrived, wait, silence)
    refusals = Refusals()
    doing = f"sending {len(payload)} bytes by UDP to {address[0]} port {address[1]}"
    burst = max(1, BURST // (1 + (len(payload) + 8) // FRAGMENT))
    for first in range(0, count, burst):
        last = min(first + burst, count)
        refusals.offer(lambda: sender.sendto(payload, address), last - first, doing)
        pace.burst(last - refusals.total())
    taken = count - refusals.total()
    pace.finish(taken)
    return Sent(
        sent=count,
        received=tally.received,
        bytes=taken * len(payload),
        received_bytes=tally.received_bytes,
        seconds=pace.seconds,
        errors=dict(refusals),
    )

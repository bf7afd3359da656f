"""ICMP and ICMPv6 echo requests from a raw socket, one in flight at a time."""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pytest_bpf.kernel.layers.values import checksum
from pytest_bpf.traffic.pace import Pace
from pytest_bpf.traffic.result import Refusals, TrafficResult

if TYPE_CHECKING:
    from pytest_bpf.traffic.pace import Silence

ECHO_HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443)."""

TYPES = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
"""Echo request and echo reply."""


class Pings:
    """The echo requests of one call, and the replies that came to them."""

    def __init__(self, sender: socket.socket, payload: bytes) -> None:
        self.sender = sender
        self.payload = payload
        self.identifier = secrets.randbits(16)
        self.request, self.reply = TYPES[socket.AddressFamily(sender.family)]
        self.left: dict[int, float] = {}
        self.rtts: dict[int, float] = {}
        self.received_bytes = 0

    def send(self, address: str, number: int) -> None:
        """Send request ``number``."""
        header = (self.request, 0, 0, self.identifier, number & 0xFFFF)
        message = ECHO_HEADER.pack(*header) + self.payload
        if self.request == TYPES[socket.AF_INET][0]:  # the kernel fills in ICMPv6's checksum only
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        self.left[number & 0xFFFF] = time.perf_counter()
        self.sender.sendto(message, (address, 0))

    def drain(self) -> int:
        """Read what is queued; return the number of requests answered so far."""
        with suppress(BlockingIOError):
            while True:
                self._take(self.sender.recv(1 << 16, socket.MSG_DONTWAIT), time.perf_counter())
        return len(self.rtts)

    def _take(self, packet: bytes, at: float) -> None:
        if self.sender.family == socket.AF_INET:  # a raw IPv4 socket shows the IP header as well
            packet = packet[(packet[0] & 0xF) * 4 :]
        if len(packet) < ECHO_HEADER.size:
            return
        kind, _, _, identifier, number = ECHO_HEADER.unpack_from(packet)
        if (kind, identifier) == (self.reply, self.identifier) and number in self.left:
            self.received_bytes += len(packet) - ECHO_HEADER.size
            self.rtts.setdefault(number, at - self.left[number])


def exchange(
    sender: socket.socket,
    address: str,
    payload: bytes,
    count: int,
    silence: Silence,
) -> TrafficResult:
    """Send ``count`` echo requests to ``address``, each when the one before is answered or lost."""
    pings = Pings(sender, payload)
    poll = select.poll()
    poll.register(sender, select.POLLIN)

    def wait(seconds: float) -> None:
        poll.poll(seconds * 1000)

    pace = Pace(pings.drain, wait, silence)
    refusals = Refusals()
    action = f"pinging {address} with {len(payload)} bytes"
    for number in range(count):
        refusals.offer(partial(pings.send, address, number), 1, action)
        pace.burst(number + 1 - refusals.total())
    accepted = count - refusals.total()
    pace.finish(accepted)
    return TrafficResult(
        sent=count,
        received=len(pings.rtts),
        bytes=accepted * len(payload),
        received_bytes=pings.received_bytes,
        seconds=pace.seconds,
        errors=dict(refusals),
        rtts=tuple(pings.rtts[number] for number in sorted(pings.rtts)),
    )

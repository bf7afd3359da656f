"""UDP: datagrams in bursts, each burst received before the next leaves."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING

from pytest_bpf.traffic.ends import widen
from pytest_bpf.traffic.pace import BURST, Pace, bursts, wait_until
from pytest_bpf.traffic.result import Refusals, TrafficResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.traffic.ends import UdpEnd
    from pytest_bpf.traffic.pace import Silence

FRAGMENT = 1480
"""Payload of one IPv4 packet at an MTU of 1500 bytes."""


class Replies:
    """Counts what comes back on the senders' sockets."""

    def __init__(self, senders: Sequence[socket.socket]) -> None:
        self.senders = senders
        self.received = 0
        self.received_bytes = 0
        self._buffer = bytearray(1 << 16)
        for sender in senders:
            widen(sender)

    def drain(self) -> int:
        """Read all that is queued; return the number of replies since the beginning."""
        for sender in self.senders:
            with suppress(BlockingIOError):
                while True:
                    size = sender.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
                    self.received += 1
                    self.received_bytes += size
        return self.received


def exchange(  # noqa: PLR0917 (as of `ask`)
    senders: Sequence[socket.socket],
    end: UdpEnd,
    payload: bytes,
    count: int,
    silence: Silence,
    rate: float | None = None,
) -> TrafficResult:
    """Send ``payload`` to ``end`` ``count`` times, by each sender in turn, and count what arrives.

    With an echoing end the replies are counted instead. All sockets are read by this thread,
    between bursts, so that none of their buffers can overflow. ``rate`` is datagrams a second;
    without it they are sent as fast as they arrive.
    """
    address = (end.address, end.port)
    replies = Replies(senders)
    tally: UdpEnd | Replies = replies if end.echo else end
    poll = select.poll()
    poll.register(end.socket, select.POLLIN)
    if end.echo:
        for sender in senders:
            poll.register(sender, select.POLLIN)

    def arrived() -> int:
        end.drain()
        return tally.drain()

    def wait(seconds: float) -> None:
        poll.poll(seconds * 1000)

    turn = cycle(senders)
    pace = Pace(arrived, wait, silence)
    refusals = Refusals()
    action = f"sending {len(payload)} bytes by UDP to {address[0]} port {address[1]}"
    burst = max(1, BURST // (1 + (len(payload) + 8) // FRAGMENT))
    for first, last in bursts(count, burst, rate):
        refusals.offer(lambda: next(turn).sendto(payload, address), last - first, action)
        if rate is None:
            pace.burst(last - refusals.total())
        else:
            pace.look()
    accepted = count - refusals.total()
    pace.finish(accepted)
    return TrafficResult(
        sent=count,
        received=tally.received,
        bytes=accepted * len(payload),
        received_bytes=tally.received_bytes,
        seconds=pace.seconds,
        errors=dict(refusals),
    )


def ask(  # noqa: PLR0917 (as of `exchange`)
    senders: Sequence[socket.socket],
    end: UdpEnd,
    payload: bytes,
    count: int,
    silence: Silence,
    rate: float | None = None,
) -> TrafficResult:
    """Send ``payload`` and wait for its answer, ``count`` times, by each sender in turn.

    One thread serves both ends, so that no time is the scheduler's. An answer that a program gives
    on the way is as good as one of ``end``.
    """
    address = (end.address, end.port)
    action = f"sending {len(payload)} bytes by UDP to {address[0]} port {address[1]}"
    refusals, rtts = Refusals(), []
    size, begin = 0, time.perf_counter()
    buffer = bytearray(1 << 16)
    for number, sender in zip(range(count), cycle(senders), strict=False):
        if rate is not None:
            wait_until(begin + number / rate)
        while _read(sender, buffer):  # an answer that came too late
            continue
        start = time.perf_counter()
        try:
            sender.sendto(payload, address)
        except OSError as error:
            refusals.add(error, action)
            continue
        answer = _answer(sender, end, buffer, start + silence.final)
        if answer:
            rtts.append(time.perf_counter() - start)
            size += answer
    return TrafficResult(
        sent=count,
        received=len(rtts),
        bytes=(count - refusals.total()) * len(payload),
        received_bytes=size,
        seconds=time.perf_counter() - begin,
        errors=dict(refusals),
        rtts=tuple(rtts),
    )


def _answer(sender: socket.socket, end: UdpEnd, buffer: bytearray, until: float) -> int:
    """Return the bytes of the answer, 0 when none comes in time."""
    while True:
        end.drain()
        if size := _read(sender, buffer):
            return size
        rest = until - time.perf_counter()
        if rest <= 0:
            return 0
        poll = select.poll()
        for each in (sender, end.socket):
            poll.register(each, select.POLLIN)
        poll.poll(rest * 1000)


def _read(sender: socket.socket, buffer: bytearray) -> int:
    try:
        return sender.recv_into(buffer, 0, socket.MSG_DONTWAIT)
    except OSError:  # nothing there, or an error of ICMP
        return 0

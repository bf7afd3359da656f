"""Raw Ethernet frames from a packet socket, and the tap that counts those that arrive."""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

from pytest_bpf.traffic.capture.packet_socket import (
    ETH_P_ALL,
    PACKET_IGNORE_OUTGOING,
    PACKET_STATISTICS,
    SOL_PACKET,
    attach_filter,
)
from pytest_bpf.traffic.pace import BURST, Pace, bursts
from pytest_bpf.traffic.result import Refusals, TrafficResult

if TYPE_CHECKING:
    from pytest_bpf.traffic.endpoint import Endpoint
    from pytest_bpf.traffic.pace import Silence

LOAD_WORD, LOAD_HALF, LOAD_BYTE, EQUAL, RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
"""Classic BPF (linux/filter.h): load 4, 2, 1 bytes at an offset; jump if equal; return."""

COMPARED = 64
"""Bytes of a frame that a tap compares."""

LOOK_AGAIN = 0.001
"""Seconds between two looks at a tap's counter, which nothing announces."""


class Tap:
    """Counts, in the kernel, the frames equal to ``frame`` that an interface hands to its stack.

    That is after native and generic XDP, and before tc. Equal means the same first `COMPARED`
    bytes, without a VLAN tag (the kernel has taken it off by then).
    """

    def __init__(self, endpoint: Endpoint, ifname: str, frame: bytes) -> None:
        self.received = 0
        self.socket = endpoint.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            attach_filter(self.socket, frame_filter(frame))
            self.socket.bind((ifname, ETH_P_ALL))
        except BaseException:
            self.socket.close()
            raise

    def count(self) -> int:
        """Return how many arrived so far: ``tp_packets``, which reading sets back to zero."""
        statistics = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.received += struct.unpack("II", statistics)[0]
        return self.received

    def close(self) -> None:
        """Close the socket; the count stays."""
        self.socket.close()


def frame_filter(frame: bytes) -> list[tuple[int, int, int, int]]:
    """Return a classic BPF filter, as (code, jt, jf, k), that accepts frames that begin so."""
    if frame[12:14] in (b"\x81\x00", b"\x88\xa8"):
        frame = frame[:12] + frame[16:]
    frame = frame[:COMPARED]
    parts: list[tuple[int, int, int]] = []
    at = 0
    while at < len(frame):
        load, size = next(
            (load, size)
            for load, size in ((LOAD_WORD, 4), (LOAD_HALF, 2), (LOAD_BYTE, 1))
            if at + size <= len(frame)
        )
        parts.append((load, at, int.from_bytes(frame[at : at + size], "big")))
        at += size
    program = []
    for number, (load, offset, value) in enumerate(parts):
        to_reject = 2 * (len(parts) - number - 1) + 1
        program += [(load, 0, 0, offset), (EQUAL, 0, to_reject, value)]
    return [*program, (RETURN, 0, 0, 0xFFFFFFFF), (RETURN, 0, 0, 0)]


def tap_pace(tap: Tap | None, silence: Silence) -> Pace:
    """Return the `Pace` of a tap; without one nothing is waited for."""

    def wait(seconds: float) -> None:
        time.sleep(min(seconds, LOOK_AGAIN))

    if tap is None:
        return Pace(lambda: sys.maxsize, wait, silence)
    return Pace(tap.count, wait, silence)


def exchange(  # noqa: PLR0917 (as of `replay.exchange`)
    sender: socket.socket,
    tap: Tap | None,
    frame: bytes,
    count: int,
    silence: Silence,
    rate: float | None = None,
) -> TrafficResult:
    """Send ``frame`` ``count`` times, ``rate`` a second, and count what reaches ``tap``."""
    pace = tap_pace(tap, silence)
    refusals = Refusals()
    action = f"sending a frame of {len(frame)} bytes"
    for first, last in bursts(count, BURST, rate):
        refusals.offer(lambda: sender.send(frame), last - first, action)
        if rate is None:
            pace.burst(last - refusals.total())
        else:
            pace.look()
    accepted = count - refusals.total()
    pace.finish(accepted)
    received = tap.count() if tap else 0
    return TrafficResult(
        sent=count,
        received=received,
        bytes=accepted * len(frame),
        received_bytes=received * len(frame),
        seconds=pace.seconds,
        errors=dict(refusals),
        received_frames=[frame] * received,
    )

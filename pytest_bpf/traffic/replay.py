"""Several frames in one call, as fast as possible or with the timing of a recording."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from pytest_bpf.errors import StimulusError
from pytest_bpf.traffic.pace import BURST, Pace, wait_until
from pytest_bpf.traffic.result import Refusals, TrafficResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.traffic.capture.ring import Ring
    from pytest_bpf.traffic.endpoint import Endpoint
    from pytest_bpf.traffic.pace import Silence

SIOCGIFMTU = 0x8921
ETHERNET, TAG = 14, 4
LOOK_AGAIN = 0.001
"""Seconds between two looks at how many frames have passed."""

RING, MOST = 16 << 20, 512 << 20
"""Bytes of the ring that counts arrivals, and of what is taken out of it."""


def open_sender(endpoint: Endpoint, ifname: str) -> socket.socket:
    """Return a packet socket that sends from an interface; the caller closes it."""
    sender = endpoint.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sender.bind((ifname, 0))
    except OSError as error:
        sender.close()
        raise StimulusError(
            f"{endpoint.name}: frames cannot be sent from {ifname}: {error.strerror}"
        ) from error
    return sender


def check_mtu(sender: socket.socket, ifname: str, frames: Sequence[bytes]) -> None:
    """Raise `StimulusError` when a frame is longer than the interface's MTU lets pass."""
    request = struct.pack("16sI20x", ifname.encode(), 0)
    mtu = struct.unpack_from("16xI", fcntl.ioctl(sender, SIOCGIFMTU, request))[0]
    for number, frame in enumerate(frames, start=1):
        room = mtu + ETHERNET + TAG * (frame[12:14] in {b"\x81\x00", b"\x88\xa8"})
        if len(frame) > room:
            which = f"frame {number}" if len(frames) > 1 else "the frame"
            raise StimulusError(
                f"{which} has {len(frame)} bytes, but the mtu of {ifname} is {mtu}, so a frame has "
                f"at most {room}; make the topology with mtu={len(frame) - (room - mtu)}"
            )


def exchange(
    sender: socket.socket,
    ring: Ring | None,
    frames: Sequence[bytes],
    times: Sequence[float],
    silence: Silence,
) -> TrafficResult:
    """Send ``frames`` and count those that come to ``ring``; ``times`` are seconds from the first.

    Without times they are sent as fast as they arrive.
    """
    refusals = Refusals()
    begin = time.perf_counter()
    pace = Pace(_count(ring), _wait, silence)
    accepted: list[bytes] = []
    for number, frame in enumerate(frames):
        if times:
            wait_until(begin + times[number])
        try:
            sender.send(frame)
            accepted.append(frame)
        except OSError as error:
            refusals.add(error, f"sending a frame of {len(frame)} bytes")
        if not times and number % BURST == BURST - 1:
            pace.burst(len(accepted))
    pace.burst(len(accepted))
    pace.finish(len(accepted))
    arrived = _matches(accepted, ring)
    return TrafficResult(
        sent=len(frames),
        received=len(arrived),
        bytes=sum(map(len, accepted)),
        received_bytes=sum(map(len, arrived)),
        seconds=pace.seconds,
        errors=dict(refusals),
        received_frames=arrived,
    )


def _count(ring: Ring | None) -> Callable[[], int]:
    return (lambda: sys.maxsize) if ring is None else (lambda: ring.passed)


def _wait(seconds: float) -> None:
    time.sleep(min(seconds, LOOK_AGAIN))


def _matches(sent: Sequence[bytes], ring: Ring | None) -> list[bytes]:
    """Return the frames of the ring that were sent, each as often as it was sent at most."""
    from pytest_bpf.traffic.capture.blocks import columns  # noqa: PLC0415 - numpy, by its first user

    if ring is None:
        return []
    ring.wait()
    waiting = Counter(sent)
    result = []
    for block in ring.blocks:
        for frame in columns(block).raw():
            if waiting[frame]:
                waiting[frame] -= 1
                result.append(frame)
    return result

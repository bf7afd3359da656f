"""An AF_XDP socket that receives and sends, by the kernel's own interface."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import time
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import PlaceError, PrivilegeError, StimulusError, UnavailableError
from pytest_bpf.kernel.layers.buffers import to_bytes
from pytest_bpf.kernel.sys import libc
from pytest_bpf.traffic.xsk.rings import (
    AF_XDP,
    COMPLETION_RING,
    FILL_RING,
    RX_RING,
    SOL_XDP,
    TX_RING,
    open_rings,
    register_memory,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from pytest_bpf.traffic.capture.packet_socket import Port, Sockets

STATISTICS = 7
MODES = {"auto": 0, "copy": 1 << 1, "zerocopy": 1 << 2}
"""``XDP_STATISTICS``, and the flags of a bind."""

ENTRIES, FRAME_SIZE = 2048, 2048
"""Entries of each ring, as many as frames that wait for one direction; and bytes of a frame."""

SEND_TIMEOUT = 5.0
RELEASE, LOOK_AGAIN = 1.0, 0.005
"""Seconds that frames may take to leave, and the kernel to let go of a queue, of which nothing
tells; and those between two tries."""


@dataclass(frozen=True)
class XdpSocketStatistics:
    """How many frames were lost, by the kernel's reasons (``struct xdp_statistics``)."""

    rx_dropped: int
    rx_invalid_descs: int
    tx_invalid_descs: int
    rx_ring_full: int
    rx_fill_ring_empty_descs: int
    tx_ring_empty_descs: int


class XdpSocket:
    """An AF_XDP socket on one queue of an interface; close it, or use ``with``.

    Write it into an xskmap, ``obj.maps["sockets"][queue] = xsk``, and it receives what the program
    redirects there. ``mode`` is "copy", "zerocopy", or "auto" for the better one that the driver
    has. Raises `UnavailableError` where the kernel has no AF_XDP, `PlaceError` for a queue that is
    taken or not there.
    """

    def __init__(self, place: Sockets, interface: Port, queue: int = 0, mode: str = "auto") -> None:
        if mode not in MODES:
            raise PlaceError(f"the mode of an AF_XDP socket is {', '.join(MODES)}, not {mode!r}")
        self.name, self.queue = interface.name, queue
        with ExitStack() as stack:
            try:
                self._socket = stack.enter_context(place.socket(AF_XDP, socket.SOCK_RAW, 0))
                self._memory = mmap.mmap(-1, 2 * ENTRIES * FRAME_SIZE)
                stack.callback(self._memory.close)
                register_memory(self._socket, self._memory, FRAME_SIZE)
                rings = open_rings(self._socket, ENTRIES)
                for ring in rings.values():
                    stack.callback(ring.close)
                self._bind(interface.ifindex, MODES[mode])
            except OSError as error:
                raise _explain(error, interface.name, queue, mode) from error
            self._rx, self._tx = rings[RX_RING], rings[TX_RING]
            self._fill, self._completion = rings[FILL_RING], rings[COMPLETION_RING]
            self._fill.put([(at * FRAME_SIZE, 0) for at in range(ENTRIES)])
            self._free = [(ENTRIES + at) * FRAME_SIZE for at in range(ENTRIES)]
            self._end = weakref.finalize(self, stack.pop_all().close)
            self._end.atexit = False

    def _bind(self, ifindex: int, flags: int) -> None:
        """Take the queue, which the kernel lets go of some time after a socket is closed."""
        address = struct.pack("HHIII", AF_XDP, flags, ifindex, self.queue, 0)
        until = time.monotonic() + RELEASE
        while True:
            try:
                libc.check(
                    libc.library().bind(self._socket.fileno(), address, len(address)), "bind"
                )
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > until:
                    raise
                time.sleep(LOOK_AGAIN)
            else:
                return

    def __repr__(self) -> str:
        return f"<XdpSocket of queue {self.queue} of {self.name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return its descriptor, which an xskmap takes."""
        return self._socket.fileno()

    def receive(self, count: int = 1, timeout: float = 5.0) -> list[bytes]:
        """Return the frames that are there, once there are ``count``, or after ``timeout`` seconds.

        More than ``count`` are returned when more are there.
        """
        until = time.monotonic() + timeout
        frames: list[bytes] = []
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while True:
            taken = self._rx.take()
            frames += [self._memory[address : address + length] for address, length in taken]
            self._fill.put([(address // FRAME_SIZE * FRAME_SIZE, 0) for address, _ in taken])
            rest = until - time.monotonic()
            if len(frames) >= count or rest <= 0:
                return frames
            poll.poll(rest * 1000)

    def send(self, frames: Any) -> int:
        """Send a frame, or several, and return how many the kernel took and gave back.

        They leave the interface beside its network stack and its XDP programs.
        """
        several = list(frames) if isinstance(frames, (list, tuple)) else [frames]
        data = [to_bytes(each, "the frame") for each in several]
        for number, each in enumerate(data, start=1):
            if not 14 <= len(each) <= FRAME_SIZE:
                raise StimulusError(
                    f"frame {number} has {len(each)} bytes; "
                    f"an AF_XDP socket sends 14 to {FRAME_SIZE}"
                )
        sent = 0
        for begin in range(0, len(data), ENTRIES):
            sent += self._send(data[begin : begin + ENTRIES])
        return sent

    def _send(self, frames: Iterable[bytes]) -> int:
        entries = []
        for frame in frames:
            address = self._free.pop()
            self._memory[address : address + len(frame)] = frame
            entries.append((address, len(frame)))
        self._tx.put(entries)
        done, until = 0, time.monotonic() + SEND_TIMEOUT
        while done < len(entries):
            self._kick()
            back = self._completion.take()
            self._free += [address for address, _ in back]
            done += len(back)
            if not back and time.monotonic() > until:
                raise StimulusError(
                    f"{self.name}: {done} of {len(entries)} frames were sent within "
                    f"{SEND_TIMEOUT:g} s; is the interface up?"
                )
        return done

    def _kick(self) -> None:
        """Let the kernel send: some 32 frames a call, or as many as its queue takes now."""
        call = libc.library().sendto
        if call(self._socket.fileno(), None, 0, socket.MSG_DONTWAIT, None, 0) < 0:
            code = ctypes.get_errno()
            if code not in {errno.EAGAIN, errno.EBUSY, errno.ENOBUFS}:
                raise StimulusError(f"{self.name}: frames cannot be sent: {os.strerror(code)}")

    @property
    def statistics(self) -> XdpSocketStatistics:
        """What was lost, and why."""
        raw = self._socket.getsockopt(SOL_XDP, STATISTICS, 48)
        words = struct.unpack(f"{len(raw) // 8}Q", raw)
        return XdpSocketStatistics(*(*words, 0, 0, 0)[:6])

    def close(self) -> None:
        """Leave the queue; a second time does nothing."""
        self._end()


def _explain(error: OSError, name: str, queue: int, mode: str) -> Exception:
    what = f"an AF_XDP socket on queue {queue} of {name}"
    if error.errno in {errno.EPERM, errno.EACCES}:
        return PrivilegeError(what, "CAP_NET_RAW")
    if error.errno == errno.EAFNOSUPPORT:
        return UnavailableError("this kernel has no AF_XDP; it needs CONFIG_XDP_SOCKETS=y")
    reasons = {
        errno.EBUSY: "another socket is on that queue",
        errno.EINVAL: "the interface has no such queue",
        errno.ENODEV: "there is no such interface here",
        errno.EOPNOTSUPP: f"the driver has no mode {mode!r}",
    }
    return PlaceError(f"{what} cannot be made: {reasons.get(error.errno or 0, error.strerror)}")

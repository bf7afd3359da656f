"""A ring of ``TPACKET_V3`` (linux/if_packet.h) and the thread that empties it block by block.

The kernel fills a block with frames and hands it over when it is full, or after `RETIRE`
milliseconds. The thread copies it and gives it back. Frames that find no free block are lost, and
the kernel counts them.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from pytest_bpf.errors import PlaceError, UnavailableError
from pytest_bpf.kernel.ringbuf.barriers import fence
from pytest_bpf.traffic.capture.packet_socket import (
    ETH_P_ALL,
    PACKET_IGNORE_OUTGOING,
    PACKET_RX_RING,
    PACKET_STATISTICS,
    PACKET_VERSION,
    SOL_PACKET,
    TPACKET_V3,
    attach_filter,
)

if TYPE_CHECKING:
    from pytest_bpf.traffic.capture.packet_socket import Sockets

BLOCK = 1 << 18
RETIRE = 2
FRAME = 2048
"""Bytes of a block, milliseconds after which it is handed over, and a size that V3 ignores."""

KERNEL, USER = 0, 1
STATUS, PACKETS, LENGTH = 8, 12, 20
"""Who has a block; where a block says that, how many frames it has, and how long it is."""

ONLY_OUTGOING = [
    (0x28, 0, 0, 0xFFFFF000 + 4),  # ldh the type of the packet: SKF_AD_OFF + SKF_AD_PKTTYPE
    (0x15, 0, 1, 4),  # PACKET_OUTGOING
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
]
"""A classic BPF filter that takes what leaves the interface."""


class Ring:
    """The frames of one interface from now on; close it.

    ``size`` is the size of the ring, and ``most`` of what is taken out of it, in bytes. What does
    not fit is lost. Raises `UnavailableError` where the kernel has no such ring, and `PlaceError`
    where there is no such interface.
    """

    def __init__(self, place: Sockets, ifname: str, direction: str, size: int, most: int) -> None:
        self.blocks: list[bytes] = []
        self._taken = self._passed = self._dropped = self._bytes = 0
        self._most = most
        self._change = threading.Condition()
        self._ended = False
        count = max(size // BLOCK, 2)
        self._socket = place.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
            if direction == "in":
                self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            if direction == "out":
                attach_filter(self._socket, ONLY_OUTGOING)
            request = (BLOCK, count, FRAME, BLOCK // FRAME * count, RETIRE, 0, 0)
            self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("7I", *request))
            self._memory = mmap.mmap(self._socket.fileno(), BLOCK * count, mmap.MAP_SHARED)
            self._socket.bind((ifname, ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            if error.errno == errno.ENODEV:
                raise PlaceError(
                    f"{ifname} cannot be captured: there is no such interface in its namespace"
                ) from None
            raise UnavailableError(
                f"{ifname} cannot be captured with a ring of {count * BLOCK:,} bytes: "
                f"{error.strerror}"
            ) from error
        self._wake = os.eventfd(0, os.EFD_CLOEXEC) if hasattr(os, "eventfd") else -1
        self._thread = threading.Thread(target=self._empty, name=f"capture {ifname}", daemon=True)
        self._thread.start()

    @property
    def hardware(self) -> int:
        """The kind of the interface's hardware (``ARPHRD_``)."""
        return int(self._socket.getsockname()[3])

    def _empty(self) -> None:
        words = (ctypes.c_uint32 * (len(self._memory) // 4)).from_buffer(self._memory)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLERR)
        if self._wake >= 0:
            poll.register(self._wake, select.POLLIN)
        at, end = 0, len(self._memory)
        while not self._ended and self._bytes < self._most:
            if not words[(at + STATUS) // 4] & USER:
                poll.poll(None if self._wake >= 0 else 10)
                continue
            fence()
            size, packets = words[(at + LENGTH) // 4], words[(at + PACKETS) // 4]
            block = self._memory[at : at + size]
            fence()
            words[(at + STATUS) // 4] = KERNEL
            at = (at + BLOCK) % end
            with self._change:
                self.blocks.append(block)
                self._bytes += len(block)
                self._taken += packets
                self._change.notify_all()
        with self._change:
            self._ended = True
            self._change.notify_all()
        del words

    def _count(self) -> None:
        """Add what passed and what was dropped since the last look; reading sets them to zero."""
        if self._socket.fileno() >= 0:
            raw = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12)
            passed, dropped, _ = struct.unpack("3I", raw)
            self._passed += passed
            self._dropped += dropped

    def wait(self, count: int = 0, timeout: float = 0.0) -> None:
        """Wait until all frames that have passed are here, and ``count`` in all or the timeout."""
        until = time.monotonic() + timeout
        while True:
            self._count()
            with self._change:
                self._change.wait_for(self._has_all)
                rest = until - time.monotonic()
                if self._ended or self._passed >= count or rest <= 0:
                    return
                self._change.wait(min(rest, 0.05))

    def _has_all(self) -> bool:
        return self._ended or self._taken >= self._passed - self._dropped

    @property
    def passed(self) -> int:
        """How many frames passed so far."""
        self._count()
        return self._passed

    @property
    def lost(self) -> int:
        """How many of them are not in `blocks`: the ring was full, or there are too many."""
        self.wait()
        return self._passed - self._taken

    def close(self) -> None:
        """Take what is there, end the thread and let go of the ring; repeatable."""
        if self._socket.fileno() < 0:
            return
        self.wait()
        self._ended = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._count()
        self._memory.close()
        self._socket.close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

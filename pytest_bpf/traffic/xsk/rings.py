"""The four rings of an AF_XDP socket (linux/if_xdp.h), and the memory that they share."""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.ringbuf.barriers import barrier, fence

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

AF_XDP, SOL_XDP = 44, 283
MMAP_OFFSETS, RX_RING, TX_RING, UMEM_REG, FILL_RING, COMPLETION_RING = 1, 2, 3, 4, 5, 6
PAGES = {RX_RING: 0, TX_RING: 0x80000000, FILL_RING: 0x100000000, COMPLETION_RING: 0x180000000}
"""Where each ring is mapped."""

ORDER = (RX_RING, TX_RING, FILL_RING, COMPLETION_RING)
"""The order in which the kernel tells their offsets."""

WORDS = {RX_RING: 2, TX_RING: 2, FILL_RING: 1, COMPLETION_RING: 1}
"""Words of 8 bytes in an entry: an address, and for frames a length."""


class Ring:
    """One ring of ``size`` entries, of which this process is the producer or the consumer.

    Positions only grow, and wrap at 32 bits.
    """

    def __init__(self, descriptor: int, kind: int, size: int, offsets: Sequence[int]) -> None:
        producer, consumer, entries, _ = offsets
        self._size, self._words = size, WORDS[kind]
        length = entries + 8 * self._words * size
        self._memory = mmap.mmap(
            descriptor, length, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=PAGES[kind]
        )
        word = ctypes.c_uint32
        self._producer: Any = word.from_buffer(self._memory, producer)
        self._consumer: Any = word.from_buffer(self._memory, consumer)
        self._entries: Any = (ctypes.c_uint64 * (self._words * size)).from_buffer(
            self._memory, entries
        )

    def take(self) -> list[tuple[int, int]]:
        """Return the entries that the kernel has put in, as (address, length), and consume them."""
        begin, end = self._consumer.value, self._producer.value
        fence()
        taken = []
        for at in range((end - begin) & 0xFFFFFFFF):
            place = (begin + at) % self._size * self._words
            length = self._entries[place + 1] & 0xFFFFFFFF if self._words > 1 else 0
            taken.append((self._entries[place], length))
        fence()
        self._consumer.value = end
        return taken

    def put(self, entries: Sequence[tuple[int, int]]) -> int:
        """Put in as many entries as there is room for, and return how many."""
        begin: int = self._producer.value
        room: int = self._size - ((begin - self._consumer.value) & 0xFFFFFFFF)
        for at, (address, length) in enumerate(entries[:room]):
            place = (begin + at) % self._size * self._words
            self._entries[place] = address
            if self._words > 1:
                self._entries[place + 1] = length  # and no options
        barrier()
        self._producer.value = (begin + min(len(entries), room)) & 0xFFFFFFFF
        return min(len(entries), room)

    def close(self) -> None:
        """Let go of the memory."""
        del self._producer, self._consumer, self._entries
        self._memory.close()


def register_memory(target: socket.socket, memory: Any, frame_size: int) -> None:
    """Give the kernel the memory in which frames are: ``struct xdp_umem_reg``."""
    area = (ctypes.c_char * len(memory)).from_buffer(memory)
    request = struct.pack("QQII", ctypes.addressof(area), len(memory), frame_size, 0)
    target.setsockopt(SOL_XDP, UMEM_REG, request)


def open_rings(target: socket.socket, size: int) -> dict[int, Ring]:
    """Make and map the four rings, with ``size`` entries each."""
    for kind in ORDER:
        target.setsockopt(SOL_XDP, kind, size)
    raw = target.getsockopt(SOL_XDP, MMAP_OFFSETS, 128)
    words = struct.unpack(f"{len(raw) // 8}Q", raw)
    each = len(words) // len(ORDER)
    rings: dict[int, Ring] = {}
    try:
        for number, kind in enumerate(ORDER):
            offsets = (*words[each * number : each * (number + 1)], 0)[:4]
            rings[kind] = Ring(target.fileno(), kind, size, offsets)
    except BaseException:
        for ring in rings.values():
            ring.close()
        raise
    return rings

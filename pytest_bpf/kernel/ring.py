"""A BPF ring buffer, read straight from its shared memory.

The protocol is that of ``kernel/bpf/ringbuf.c``: one page with the position of the consumer, one
with the producer's, then the data, mapped twice in a row so that no record is ever cut. Positions
only grow. A record is a header of 8 bytes (length, with the flags BUSY and DISCARD) and its data,
rounded up to 8. It is whole once its header is not BUSY, so headers are read first, and after a
fence the data.
"""

from __future__ import annotations

import ctypes
import mmap
import select
import time
from typing import TYPE_CHECKING

from pytest_bpf.kernel.ordering import barrier, fence
from pytest_bpf.kernel.taken import Batch, Row, alike

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY, DISCARD = 1 << 31, 1 << 30
HEADER = 8

SHORT = 0.0001
"""Seconds to wait for a record that is being written: the kernel does not tell when it is."""


class Ring:
    """The reading end of one ring buffer of ``size`` bytes; there must be only one at a time.

    ``record`` is the length of the longest record expected, in bytes; a longer one that comes
    corrects it.

    A program that puts a record where the consumer stands wakes it, which takes a hundred times
    as long as the record itself. So a reader that looks by itself can be ``lagging``: it tells
    the kernel that it stands one record behind where it does, and is never woken.
    """

    def __init__(self, fd: int, size: int, record: int = 0, *, lagging: bool = False) -> None:
        page = mmap.PAGESIZE
        shared = {"flags": mmap.MAP_SHARED}
        self.size = size
        self._longest = record
        self._lagging = lagging
        self._consumer_page = mmap.mmap(fd, page, prot=mmap.PROT_READ | mmap.PROT_WRITE, **shared)
        try:
            self._pages = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page, **shared)
        except BaseException:
            self._consumer_page.close()
            raise
        self._told = ctypes.c_uint64.from_buffer(self._consumer_page)
        self._at = self._told.value
        self._view = memoryview(self._pages)
        self._positions = self._view[:8].cast("Q")
        self._data = self._view[page:]
        self._headers = self._data.cast("I")
        self._ready = select.poll()
        self._ready.register(fd, select.POLLIN)
        self._stopped = False
        self.discarded = 0
        """How many records were passed over, because their program discarded them."""
        self.full = False
        """Whether so much was ever pending that a further record may not have found room."""

    def drain(self) -> list[Batch]:
        """Take every finished record, in order; one that is still being written ends it."""
        rows: list[Row] = []
        start = at = self._position()
        told = last = self._told.value
        end = self._positions[0]
        fence()
        self._stopped = False
        for word, count, room in self._alike(at, end):
            if word & BUSY:
                self._stopped = True
                break
            if word & DISCARD:
                self.discarded += count
            else:
                rows.append(Row(at - start + HEADER, room, count, word))
            at += count * room
            last = at - room
            self._longest = max(self._longest, word & ~DISCARD)
        fence()
        begin = start % self.size
        data = bytes(self._data[begin : begin + at - start])
        fence()
        self._at = at
        self._told.value = last if self._lagging else at
        barrier()
        # What came meanwhile found its room before the position moved: it counts as well.
        self.full = self.full or self._positions[0] - told + _room(self._longest) >= self.size
        return [Batch(data, rows)]

    @property
    def pending(self) -> int:
        """How many records wait to be taken, with those that are still being written."""
        end = self._positions[0]
        fence()
        return sum(
            count for word, count, _ in self._alike(self._position(), end) if not word & DISCARD
        )

    @property
    def memory(self) -> int:
        """Bytes that reading takes besides the map: none, it is the map's memory that is read."""
        return 0

    @property
    def lost(self) -> int | None:
        """How many records found no room: 0 when it is certain that none did, else None.

        The kernel keeps no count. Between two takings the producer only advances, so as long as
        what was found each time left room for one more of the longest records, no reservation of
        such a length can have failed.
        """
        return None if self.full else 0

    def wait(self, seconds: float) -> None:
        """Return when a record is there, or after ``seconds``; always then when ``lagging``."""
        if self._lagging:
            time.sleep(seconds)
        elif self._stopped:
            time.sleep(min(seconds, SHORT))
        else:
            self._ready.poll(seconds * 1000)

    def close(self) -> None:
        """Unmap the memory; the map itself stays."""
        self._told.value = self._position()
        del self._told
        for view in (self._positions, self._headers, self._data, self._view):
            view.release()
        self._pages.close()
        self._consumer_page.close()

    def _position(self) -> int:
        """Return where the reader stands: ahead of what it told, or behind another reader."""
        return max(self._at, self._told.value)

    def _alike(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (header, count, room of each) of records in a row that have the same header."""
        while at < end:
            offset = at % self.size
            word = self._headers[offset // 4]
            room = _room(word & ~(BUSY | DISCARD))
            count = alike(self._headers, offset // 4, room // 4, (end - at) // room, word)
            yield word, count, room
            at += count * room


def _room(length: int) -> int:
    """Return the bytes that a record of ``length`` takes: its header too, rounded up to 8."""
    return (length + HEADER + 7) // 8 * 8

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

from pytest_bpf.kernel.ringbuf.barriers import barrier, fence
from pytest_bpf.kernel.ringbuf.rows import Row, RowBatch, count_equal

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
    as long as the record itself. So a reader that polls can be ``lagging``: it
    publishes a position one record behind its own, and is never woken.
    """

    lasting = True

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
        self._consumer = ctypes.c_uint64.from_buffer(self._consumer_page)
        self._at = self._consumer.value
        self._copy: tuple[RowBatch, int] | None = None
        self._view = memoryview(self._pages)
        self._positions = self._view[:8].cast("Q")
        self._data = self._view[page:]
        self._headers = self._data.cast("I")
        self._ready = select.poll()
        self._ready.register(fd, select.POLLIN)
        self._stopped = False
        self.discarded = 0
        """How many records were skipped because their program discarded them."""
        self.full = False
        """Whether so much was ever pending that a further record may not have found room."""

    def drain(self, batches: list[RowBatch]) -> None:
        """Append every complete record to ``batches``; one that is still being written ends it.

        Interrupted at any point, it takes nothing twice and loses nothing: the next one goes on.
        """
        self.settle(batches)
        discarded = 0
        rows: list[Row] = []
        start = at = self._position()
        consumer = last = self._consumer.value
        end = self._positions[0]
        fence()
        self._stopped = False
        for word, count, room in self._runs(at, end):
            if word & BUSY:
                self._stopped = True
                break
            if word & DISCARD:
                discarded += count
            else:
                rows.append(Row(at - start + HEADER, room, count, word))
            at += count * room
            last = at - room
            self._longest = max(self._longest, word & ~DISCARD)
        fence()
        begin = start % self.size
        data = bytes(self._data[begin : begin + at - start])
        fence()
        self._copy = RowBatch(data, rows), at
        self.settle(batches)
        self.discarded += discarded
        self._consumer.value = last if self._lagging else at
        barrier()
        # What came meanwhile found its room before the position moved: it counts as well.
        self.full = self.full or self._positions[0] - consumer + _room(self._longest) >= self.size

    def settle(self, batches: list[RowBatch]) -> None:
        """Finish what a signal interrupted: append the last copy once, and move the position."""
        if self._copy is None:
            return
        batch, self._at = self._copy
        if batch.rows and not (batches and batches[-1] is batch):
            batches.append(batch)
        self._copy = None

    @property
    def pending(self) -> int:
        """How many records wait to be taken, including those still being written."""
        end = self._positions[0]
        fence()
        return sum(
            count for word, count, _ in self._runs(self._position(), end) if not word & DISCARD
        )

    @property
    def memory(self) -> int:
        """Bytes that reading takes besides the map: none, it is the map's memory that is read."""
        return 0

    @property
    def lost(self) -> int | None:
        """How many records did not fit: 0 when it is certain that none did, else None.

        The kernel keeps no count. Between two reads the producer only advances, so as long as
        what was there each time left room for one more of the longest records, no reservation of
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
        self._consumer.value = self._position()
        del self._consumer
        for view in (self._positions, self._headers, self._data, self._view):
            view.release()
        self._pages.close()
        self._consumer_page.close()

    def _position(self) -> int:
        """Return the position: ahead of the published one, or behind another reader."""
        return max(self._at, self._consumer.value)

    def _runs(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (header, count, room of each) of records in a row that have the same header."""
        while at < end:
            offset = at % self.size
            word = self._headers[offset // 4]
            room = _room(word & ~(BUSY | DISCARD))
            count = count_equal(self._headers, offset // 4, room // 4, (end - at) // room, word)
            yield word, count, room
            at += count * room


def _room(length: int) -> int:
    """Return the bytes that a record of ``length`` takes: its header too, rounded up to 8."""
    return (length + HEADER + 7) // 8 * 8

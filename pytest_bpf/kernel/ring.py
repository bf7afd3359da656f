"""A BPF ring buffer, read straight from its shared memory.

The protocol is that of ``kernel/bpf/ringbuf.c``: one page with the position of the consumer, one
with the producer's, then the data, mapped twice in a row so that no record is ever cut. Positions
only grow. A record is a header of 8 bytes (length, with the flags BUSY and DISCARD) and its data,
rounded up to 8.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import select
import struct
import threading

BUSY, DISCARD = 1 << 31, 1 << 30
HEADER = 8
_header = struct.Struct("=I").unpack_from


class Ring:
    """The reading end of one ring buffer of ``size`` bytes; there must be only one at a time.

    ``record`` is the length of the longest record expected, in bytes; a longer one that comes
    corrects it.
    """

    def __init__(self, fd: int, size: int, record: int = 0) -> None:
        page = mmap.PAGESIZE
        shared = {"flags": mmap.MAP_SHARED}
        self.size = size
        self._longest = record
        self._consumer_page = mmap.mmap(fd, page, prot=mmap.PROT_READ | mmap.PROT_WRITE, **shared)
        try:
            self._pages = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page, **shared)
        except BaseException:
            self._consumer_page.close()
            raise
        self._consumer = ctypes.c_uint64.from_buffer(self._consumer_page)
        self._view = memoryview(self._pages)
        self._positions = self._view[:8].cast("Q")
        self._data = self._view[page:]
        self._ready = select.poll()
        self._ready.register(fd, select.POLLIN)
        self.full = False
        """Whether so much was ever pending that a further record may not have found room."""

    def drain(self) -> list[bytes]:
        """Take every finished record, in order; one that is still being written ends it."""
        at = start = self._consumer.value
        end = self._positions[0]
        fence()
        records = []
        while at < end:
            offset = at % self.size
            (word,) = _header(self._data, offset)
            if word & BUSY:
                break
            length = word & ~DISCARD
            if not word & DISCARD:
                records.append(bytes(self._data[offset + HEADER : offset + HEADER + length]))
            self._longest = max(self._longest, length)
            at += _room(length)
        fence()
        self._consumer.value = at
        fence()
        # What came meanwhile found its room before the position moved: it counts as well.
        self.full = self.full or self._positions[0] - start + _room(self._longest) >= self.size
        return records

    @property
    def pending(self) -> int:
        """How many records wait to be taken, with those that are still being written."""
        at, end, count = self._consumer.value, self._positions[0], 0
        fence()
        while at < end:
            (word,) = _header(self._data, at % self.size)
            count += not word & DISCARD
            at += _room(word & ~(BUSY | DISCARD))
        return count

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
        """Return when a record is there, or after ``seconds``."""
        self._ready.poll(seconds * 1000)

    def close(self) -> None:
        """Unmap the memory; the map itself stays."""
        del self._consumer
        self._positions.release()
        self._data.release()
        self._view.release()
        self._pages.close()
        self._consumer_page.close()


def _room(length: int) -> int:
    """Return the bytes that a record of ``length`` takes: its header too, rounded up to 8."""
    return (length + HEADER + 7) // 8 * 8


_lock = threading.Lock()


def fence() -> None:
    """Order the memory accesses before it and after it.

    x86 keeps loads in order and stores in order by itself. Elsewhere a lock is taken and given
    back: its release and its next acquire are a full barrier.
    """
    if platform.machine() not in {"x86_64", "AMD64"}:  # pragma: no cover
        for _ in range(2):
            with _lock:
                pass

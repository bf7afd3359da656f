"""Perf buffers, one a CPU, read straight from their shared memory.

The protocol is that of ``uapi/linux/perf_event.h``: a page with ``data_head`` and ``data_tail``,
then the data. Everything before the head is whole, so it is copied first and looked at after.
What found no room the kernel counts itself: for each buffer since 6.0; before, in records of type
LOST, which come with the next record that finds room.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.kernel import elements
from pytest_bpf.kernel.ordering import fence
from pytest_bpf.kernel.perf_event import online_cpus, open_bpf_output
from pytest_bpf.kernel.taken import Batch, Row, alike

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE, LOST = 9, 2
HEAD, TAIL = 1024, 1032
HEADER = 8
PAGES = 64


class PerfRings:
    """The reading end of a BPF_MAP_TYPE_PERF_EVENT_ARRAY: ``size`` bytes for each CPU online.

    Only what is put out after it was opened is seen. ``size`` is rounded up to a power of two of
    pages. A ``lagging`` reader is not woken by each record, but when a buffer is half full.
    """

    discarded = 0

    def __init__(self, fd: int, size: int | None = None, *, lagging: bool = False) -> None:
        page = mmap.PAGESIZE
        pages = PAGES if size is None else 1 << ((size - 1) // page).bit_length()
        watermark = pages * page // 2 if lagging else 0
        self._map = fd
        self._rings: list[_PerfRing] = []
        self._ready = select.poll()
        try:
            for cpu in online_cpus():
                try:
                    ring = _PerfRing(cpu, pages, watermark)
                except OSError as error:
                    if error.errno != errno.ENODEV:  # offline by now
                        raise
                    continue
                self._rings.append(ring)
                key = cpu.to_bytes(4, sys.byteorder)
                elements.update(fd, key, ring.fd.to_bytes(4, sys.byteorder))
                self._ready.register(ring.fd, select.POLLIN)
        except BaseException:
            self.close()
            raise

    def drain(self) -> list[Batch]:
        """Take every record, CPU by CPU, each CPU's in order."""
        return [ring.drain() for ring in self._rings]

    @property
    def lost(self) -> int:
        """How many records found no room since it was opened."""
        return sum(ring.lost for ring in self._rings)

    @property
    def pending(self) -> int:
        """How many records wait to be taken."""
        return sum(ring.pending for ring in self._rings)

    @property
    def memory(self) -> int:
        """Bytes of all rings, with the page of positions that each has."""
        return sum(mmap.PAGESIZE + ring.size for ring in self._rings)

    def wait(self, seconds: float) -> None:
        """Return when a record is there (half full, when ``lagging``), or after ``seconds``."""
        self._ready.poll(seconds * 1000)

    def close(self) -> None:
        """Close the buffers, which the map holds too; the map itself stays."""
        for ring in self._rings:
            with suppress(OSError):
                elements.delete(self._map, ring.cpu.to_bytes(4, sys.byteorder))
            ring.close()
        self._rings.clear()


class _PerfRing:
    def __init__(self, cpu: int, pages: int, watermark: int) -> None:
        self.cpu = cpu
        self.size = pages * mmap.PAGESIZE
        self.fd, self._counts = open_bpf_output(cpu, watermark)
        self._told = 0
        try:
            self._pages = mmap.mmap(self.fd, mmap.PAGESIZE + self.size, flags=mmap.MAP_SHARED)
        except BaseException:
            os.close(self.fd)
            raise
        self._head = ctypes.c_uint64.from_buffer(self._pages, HEAD)
        self._tail = ctypes.c_uint64.from_buffer(self._pages, TAIL)
        self._view = memoryview(self._pages)
        self._data = self._view[mmap.PAGESIZE :]

    @property
    def pending(self) -> int:
        return sum(many for kind, _, many, _ in _rows(self._copied()) if kind == SAMPLE)

    @property
    def lost(self) -> int:
        return int(struct.unpack("=QQ", os.read(self.fd, 16))[1]) if self._counts else self._told

    def drain(self) -> Batch:
        data = self._copied()
        fence()
        self._tail.value += len(data)
        rows = []
        for kind, at, many, size in _rows(data):
            if kind == SAMPLE:
                (length,) = struct.unpack_from("=I", data, at + HEADER)
                rows.append(Row(at + HEADER + 4, size, many, length))
            elif kind == LOST:
                lost = (
                    struct.unpack_from("=QQ", data, at + i * size + HEADER) for i in range(many)
                )
                self._told += sum(count for _, count in lost)
        return Batch(data, rows)

    def _copied(self) -> bytes:
        """Return what there is; what reaches past the end goes on at the start."""
        begin, size = self._tail.value, self._head.value - self._tail.value
        fence()
        begin %= self.size
        first = self._data[begin : begin + size]
        return b"".join((first, self._data[: size - len(first)]))

    def close(self) -> None:
        del self._head, self._tail
        self._data.release()
        self._view.release()
        self._pages.close()
        os.close(self.fd)


def _rows(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield (type, offset, how many, size of each) of records in a row that have equal headers."""
    headers, lengths, at = memoryview(data).cast("Q"), memoryview(data).cast("I"), 0
    while at < len(data):
        kind, _, size = struct.unpack_from("=IHH", data, at)
        many = alike(headers, at // 8, size // 8, (len(data) - at) // size, headers[at // 8])
        if kind == SAMPLE:
            of = (at + HEADER) // 4
            many = alike(lengths, of, size // 4, many, lengths[of])
        yield kind, at, many, size
        at += many * size

"""Perf buffers, one a CPU, read straight from their shared memory.

The protocol is that of ``uapi/linux/perf_event.h``: a page with ``data_head`` and ``data_tail``,
then the data. Everything before the head is complete, so it is copied first and parsed after.
The kernel counts what did not fit: per buffer since 6.0; before, in records of type LOST, which
come with the next record that fits.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import struct
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.ringbuf.barriers import fence
from pytest_bpf.kernel.ringbuf.rows import Row, RowBatch, count_equal
from pytest_bpf.kernel.sys.perf_event import online_cpus, open_bpf_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAMPLE, LOST = 9, 2
HEAD, TAIL = 1024, 1032
HEADER, TIME, LENGTH = 8, 8, 4
"""Bytes of a sample's parts before its own: the header, the time if asked for, the length."""
PAGES = 64


class PerfRings:
    """The reading end of a BPF_MAP_TYPE_PERF_EVENT_ARRAY: ``size`` bytes for each CPU online.

    Only what is put out after it was opened is seen. ``size`` is rounded up to a power of two of
    pages. A ``lagging`` reader is not woken by each record, but when a buffer is half full.
    """

    discarded = 0
    lasting = False

    def __init__(
        self, fd: int, size: int | None = None, *, lagging: bool = False, timed: bool = False
    ) -> None:
        page = mmap.PAGESIZE
        pages = PAGES if size is None else 1 << ((size - 1) // page).bit_length()
        watermark = pages * page // 2 if lagging else 0
        self._map = fd
        self._timed = timed
        self._copy: tuple[RowBatch, list[int]] | None = None
        self._rings: list[_PerfRing] = []
        self._ready = select.poll()
        try:
            for cpu in online_cpus():
                try:
                    ring = _PerfRing(cpu, pages, watermark, timed=timed)
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

    def drain(self, batches: list[RowBatch]) -> None:
        """Append every record to ``batches``: in order of time, or CPU by CPU without one.

        What comes while it works stays for the next one, so that order holds from one to the next.
        Interrupted at any point, it takes nothing twice and loses nothing: the next one goes on.
        """
        self.settle(batches)
        now = time.monotonic_ns() if self._timed else None
        parts = [ring.copy(now) for ring in self._rings]
        ends = [ring.position + len(p.data) for ring, p in zip(self._rings, parts, strict=True)]
        self._copy = join(parts, timed=self._timed), ends
        self.settle(batches)

    def settle(self, batches: list[RowBatch]) -> None:
        """Finish what a signal interrupted: append the last copy once, and move the positions."""
        if self._copy is None:
            return
        batch, ends = self._copy
        if batch.rows and not (batches and batches[-1] is batch):
            batches.append(batch)
        fence()
        for ring, end in zip(self._rings, ends, strict=True):
            ring.position = end
        self._copy = None

    @property
    def lost(self) -> int:
        """How many records did not fit since it was opened."""
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
    def __init__(self, cpu: int, pages: int, watermark: int, *, timed: bool) -> None:
        self.cpu = cpu
        self.size = pages * mmap.PAGESIZE
        self.fd, self._counts = open_bpf_output(cpu, watermark, timed=timed)
        self._raw = HEADER + (TIME if timed else 0) + LENGTH
        self._lost_records = 0
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
        return sum(row.many for row in self._parse(self._copy())[0])

    @property
    def lost(self) -> int:
        return (
            int(struct.unpack("=QQ", os.read(self.fd, 16))[1])
            if self._counts
            else self._lost_records
        )

    @property
    def position(self) -> int:
        """Where the reader stands; what is before it may be overwritten."""
        return self._tail.value

    @position.setter
    def position(self, position: int) -> None:
        self._tail.value = position

    def copy(self, now: int | None) -> RowBatch:
        """Return what is there, but no record that is later than ``now``."""
        data = self._copy()
        rows, lost = self._parse(data)
        if now is not None and rows:
            late = np.flatnonzero(times(RowBatch(data, rows)) > now)
            if late.size:
                data = data[: int(RowBatch(data, rows).offsets()[late[0]]) - self._raw]
                rows, lost = self._parse(data)
        self._lost_records += lost
        return RowBatch(data, rows)

    def _parse(self, data: bytes) -> tuple[list[Row], int]:
        """Return the rows of samples, and how many records are reported as lost."""
        rows, lost = [], 0
        for kind, at, many, size in _rows(data, self._raw):
            if kind == SAMPLE:
                (length,) = struct.unpack_from("=I", data, at + self._raw - 4)
                rows.append(Row(at + self._raw, size, many, length))
            elif kind == LOST:
                counts = (
                    struct.unpack_from("=QQ", data, at + i * size + HEADER) for i in range(many)
                )
                lost += sum(count for _, count in counts)
        return rows, lost

    def _copy(self) -> bytes:
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


def _rows(data: bytes, raw: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (type, offset, how many, size of each) of records in a row that have equal headers.

    ``raw`` is where the bytes of a sample begin, after their length.
    """
    headers, lengths, at = memoryview(data).cast("Q"), memoryview(data).cast("I"), 0
    while at < len(data):
        kind, _, size = struct.unpack_from("=IHH", data, at)
        many = count_equal(headers, at // 8, size // 8, (len(data) - at) // size, headers[at // 8])
        if kind == SAMPLE:
            length_at = (at + raw - 4) // 4
            many = count_equal(lengths, length_at, size // 4, many, lengths[length_at])
        yield kind, at, many, size
        at += many * size


def times(batch: RowBatch) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return the time of each record, in ns of ``CLOCK_MONOTONIC``."""
    shape, unit = len(batch.data) // 4 - 1, np.dtype(np.uint64)
    words: np.ndarray[Any, np.dtype[np.uint64]] = np.ndarray(shape, unit, batch.data, 0, (4,))
    places = (batch.offsets() - LENGTH - TIME) // 4
    return words.take(places)


def join(parts: Sequence[RowBatch], *, timed: bool) -> RowBatch:
    """Return the records of all CPUs as one batch: in order of time, where they have one."""
    parts = [part for part in parts if part.rows]
    if len(parts) <= 1:
        return parts[0] if parts else RowBatch(b"", [])
    rows, begin = [], 0
    for part in parts:
        rows += [row._replace(offset=begin + row.offset) for row in part.rows]
        begin += len(part.data)
    batch = RowBatch(b"".join(part.data for part in parts), rows)
    if not timed:
        return batch
    order = np.argsort(times(batch), kind="stable")
    return batch if (np.diff(order) > 0).all() else batch.reorder(order)

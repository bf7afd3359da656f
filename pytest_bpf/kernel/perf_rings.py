"""Perf buffers, one a CPU, read straight from their shared memory.

The protocol is that of ``uapi/linux/perf_event.h``: a page with ``data_head`` and ``data_tail``,
then the data. What found no room the kernel counts itself: for each buffer since 6.0; before, in
records of type LOST, which come with the next record that finds room.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import struct
import sys
from contextlib import suppress

from pytest_bpf.kernel import elements
from pytest_bpf.kernel.perf_event import online_cpus, open_bpf_output
from pytest_bpf.kernel.ring import fence

SAMPLE, LOST = 9, 2
HEAD, TAIL = 1024, 1032
PAGES = 64


class PerfRings:
    """The reading end of a BPF_MAP_TYPE_PERF_EVENT_ARRAY: ``pages`` (a power of two) for each CPU.

    Only what is put out after it was opened is seen.
    """

    def __init__(self, fd: int, pages: int = PAGES) -> None:
        self._map = fd
        self._rings: list[_PerfRing] = []
        self._ready = select.poll()
        try:
            for cpu in online_cpus():
                ring = _PerfRing(cpu, pages)
                self._rings.append(ring)
                key = cpu.to_bytes(4, sys.byteorder)
                elements.update(fd, key, ring.fd.to_bytes(4, sys.byteorder))
                self._ready.register(ring.fd, select.POLLIN)
        except BaseException:
            self.close()
            raise

    def drain(self) -> list[bytes]:
        """Take every record, CPU by CPU, each CPU's in order."""
        return [record for ring in self._rings for record in ring.drain()]

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
        """Return when a record is there, or after ``seconds``."""
        self._ready.poll(seconds * 1000)

    def close(self) -> None:
        """Close the buffers, which the map holds too; the map itself stays."""
        for ring in self._rings:
            with suppress(OSError):
                elements.delete(self._map, ring.cpu.to_bytes(4, sys.byteorder))
            ring.close()
        self._rings.clear()


class _PerfRing:
    def __init__(self, cpu: int, pages: int) -> None:
        self.cpu = cpu
        self.size = pages * mmap.PAGESIZE
        self.fd, self._counts = open_bpf_output(cpu)
        self._told = 0
        try:
            self._pages = mmap.mmap(self.fd, mmap.PAGESIZE + self.size, flags=mmap.MAP_SHARED)
        except BaseException:
            os.close(self.fd)
            raise
        self._head = ctypes.c_uint64.from_buffer(self._pages, HEAD)
        self._tail = ctypes.c_uint64.from_buffer(self._pages, TAIL)

    @property
    def pending(self) -> int:
        at, end, count = self._tail.value, self._head.value, 0
        fence()
        while at < end:
            kind, _, size = struct.unpack("=IHH", self._bytes(at, 8))
            count += kind == SAMPLE
            at += size
        return count

    @property
    def lost(self) -> int:
        return int(struct.unpack("=QQ", os.read(self.fd, 16))[1]) if self._counts else self._told

    def drain(self) -> list[bytes]:
        at, end = self._tail.value, self._head.value
        fence()
        records = []
        while at < end:
            kind, _, size = struct.unpack("=IHH", self._bytes(at, 8))
            body = self._bytes(at + 8, size - 8)
            if kind == SAMPLE:
                (length,) = struct.unpack_from("=I", body)
                records.append(body[4 : 4 + length])
            elif kind == LOST:
                self._told += struct.unpack_from("=QQ", body)[1]
            at += size
        fence()
        self._tail.value = at
        return records

    def _bytes(self, at: int, size: int) -> bytes:
        """Return ``size`` bytes at a position; what reaches past the end goes on at the start."""
        start = at % self.size
        first = self._pages[mmap.PAGESIZE + start : mmap.PAGESIZE + min(start + size, self.size)]
        return first + self._pages[mmap.PAGESIZE : mmap.PAGESIZE + size - len(first)]

    def close(self) -> None:
        del self._head, self._tail
        self._pages.close()
        os.close(self.fd)

"""Perf buffers, one a CPU, read straight from their shared memory.

The protocol is that of ``uapi/linux/perf_event.h``: a page with ``data_head`` and ``data_tail``,
then the data. What found no room the kernel counts itself, in records of type LOST.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import struct
import sys

from pytest_bpf.kernel import elements
from pytest_bpf.kernel.perf_event import open_bpf_output
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
        self.lost = 0
        try:
            for cpu in sorted(os.sched_getaffinity(0) | _online()):
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
        records = []
        for ring in self._rings:
            taken, lost = ring.drain()
            records.extend(taken)
            self.lost += lost
        return records

    @property
    def pending(self) -> int:
        """How many bytes wait to be taken, headers included."""
        return sum(ring.pending for ring in self._rings)

    def wait(self, seconds: float) -> None:
        """Return when a record is there, or after ``seconds``."""
        self._ready.poll(seconds * 1000)

    def close(self) -> None:
        """Close the buffers; the map itself stays."""
        for ring in self._rings:
            ring.close()
        self._rings.clear()


class _PerfRing:
    def __init__(self, cpu: int, pages: int) -> None:
        self.size = pages * mmap.PAGESIZE
        self.fd = open_bpf_output(cpu)
        try:
            self._pages = mmap.mmap(self.fd, mmap.PAGESIZE + self.size, flags=mmap.MAP_SHARED)
        except BaseException:
            os.close(self.fd)
            raise
        self._head = ctypes.c_uint64.from_buffer(self._pages, HEAD)
        self._tail = ctypes.c_uint64.from_buffer(self._pages, TAIL)

    @property
    def pending(self) -> int:
        return int(self._head.value - self._tail.value)

    def drain(self) -> tuple[list[bytes], int]:
        at, end = self._tail.value, self._head.value
        fence()
        records, lost = [], 0
        while at < end:
            kind, _, size = struct.unpack("=IHH", self._bytes(at, 8))
            body = self._bytes(at + 8, size - 8)
            if kind == SAMPLE:
                (length,) = struct.unpack_from("=I", body)
                records.append(body[4 : 4 + length])
            elif kind == LOST:
                lost += struct.unpack_from("=QQ", body)[1]
            at += size
        fence()
        self._tail.value = at
        return records, lost

    def _bytes(self, at: int, size: int) -> bytes:
        """Return ``size`` bytes at a position; what reaches past the end goes on at the start."""
        start = at % self.size
        first = self._pages[mmap.PAGESIZE + start : mmap.PAGESIZE + min(start + size, self.size)]
        return first + self._pages[mmap.PAGESIZE : mmap.PAGESIZE + size - len(first)]

    def close(self) -> None:
        del self._head, self._tail
        self._pages.close()
        os.close(self.fd)


def _online() -> set[int]:
    """Return the numbers of the CPUs that are online."""
    found: set[int] = set()
    with open("/sys/devices/system/cpu/online", encoding="ascii") as text:  # noqa: PTH123
        for part in text.read().strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found

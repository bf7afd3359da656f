"""How far an agent has read its ring and perf buffers, seen from outside.

The positions of producer and consumer lie in memory that both share: a ring buffer's in its map,
a perf buffer's in the first page of its event, whose descriptor ``pidfd_getfd(2)`` copies. Nothing
is consumed here.
"""

from __future__ import annotations

import mmap
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys.descriptors import perf_events_without_program
from pytest_bpf.kernel.sys.libc import syscall

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_bpf.agents.subject import Subject

PIDFD_GETFD = 438
"""The system call's number, the same on all machines that libbpf runs on."""

MAPPED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .* anon_inode:\[perf_event\]$", re.MULTILINE)
HEAD, TAIL = 1024 // 8, 1032 // 8
"""``data_head`` and ``data_tail`` of ``struct perf_event_mmap_page``, in 64-bit words."""


class Positions:
    """The positions of one buffer: ``produced`` and ``consumed`` only grow, in bytes.

    Each lies in a page, at so many 64-bit words.
    """

    def __init__(self, produced: tuple[mmap.mmap, int], consumed: tuple[mmap.mmap, int]) -> None:
        self._pages = {id(page): page for page, _ in (produced, consumed)}
        (head, self._head), (tail, self._tail) = produced, consumed
        self._produced, self._consumed = memoryview(head).cast("Q"), memoryview(tail).cast("Q")

    @property
    def produced(self) -> int:
        """How much was ever put in."""
        return self._produced[self._head]

    @property
    def consumed(self) -> int:
        """How much of it was taken out."""
        return self._consumed[self._tail]

    def close(self) -> None:
        """Unmap the pages."""
        self._produced.release()
        self._consumed.release()
        for page in self._pages.values():
            page.close()


def open_buffers(agent: Subject) -> tuple[list[Positions], int]:
    """Return the positions of the buffers that an agent reads, and how many others it has."""
    rings = [m.fd for m in agent.maps.values() if m.type == "ringbuf"]
    positions = [Positions((_page(fd, mmap.PAGESIZE), 0), (_page(fd, 0), 0)) for fd in rings]
    unseen = 0
    for pid in agent.pids():
        sizes = _perf_buffer_sizes(pid)
        opened = list(_perf_buffers(pid, set(sizes)))
        positions += opened
        unseen += max(0, len(sizes) - len(opened))  # its descriptor may be closed
    return positions, unseen


def _perf_buffer_sizes(pid: int) -> list[int]:
    """Return the sizes of the perf buffers that a process has mapped; one that is gone has none."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(end, 16) - int(start, 16) for start, end in MAPPED.findall(maps)]


def _perf_buffers(pid: int, sizes: Iterable[int]) -> Iterator[Positions]:
    for number in perf_events_without_program(pid) if sizes else ():
        try:
            fd = _copy_descriptor(pid, number)
        except OSError:
            continue
        try:
            for size in sizes:
                with suppress(OSError, ValueError):
                    page = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
                    yield Positions((page, HEAD), (page, TAIL))
                    break
        finally:
            os.close(fd)


def _page(fd: int, offset: int) -> mmap.mmap:
    return mmap.mmap(fd, mmap.PAGESIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=offset)


def _copy_descriptor(pid: int, number: int) -> int:
    """Return a copy of another process's descriptor; raise `OSError`."""
    handle = os.pidfd_open(pid)
    try:
        return syscall(PIDFD_GETFD, "pidfd_getfd", handle, number, 0)
    finally:
        os.close(handle)

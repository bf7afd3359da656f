"""Opening the reading end of a ring or perf buffer."""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING

from pytest_bpf.errors import MapError
from pytest_bpf.kernel.ringbuf.perf_rings import PAGES, PerfRings
from pytest_bpf.kernel.ringbuf.ring import Ring
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.perf_event import online_cpus

if TYPE_CHECKING:
    from pytest_bpf.objects.events.events import Buffer

MAX_INTERVAL = 1.0
"""The longest interval of a polling reader: `Events.close` waits for it."""

MAX_SIZE = 1 << 30


def open_buffer(
    fd: int,
    name: str,
    kind: str,
    max_entries: int,
    *,
    record: int,
    every: float | None,
    size: int | None,
    by_time: bool = False,
) -> Buffer:
    """Return the buffer of a map, whose records are expected to have ``record`` bytes.

    Raises `MapError` for options out of range, and when the kernel refuses.
    """
    label = f"map {name!r} ({kind})"
    _check_options(kind, max_entries, label, every, size)
    lagging = every is not None
    try:
        if kind == "ringbuf":
            return Ring(fd, max_entries, record, lagging=lagging)
        return PerfRings(fd, size, lagging=lagging, timed=by_time)
    except OSError as error:
        code = error.errno or 0
        why = libbpf.reason(code)
        if kind != "ringbuf" and code in {errno.EPERM, errno.ENOMEM}:
            why = f"no memory of {size or PAGES * mmap.PAGESIZE} bytes for each CPU ({why})"
        raise MapError(f"{label}: opening the reader failed: {why}", code) from None


def _check_options(
    kind: str, max_entries: int, label: str, every: float | None, size: int | None
) -> None:
    if every is not None and not (isinstance(every, (int, float)) and 0 < every <= MAX_INTERVAL):
        raise MapError(
            f"{label}: every={every!r} is no interval: it is in seconds, more than 0 "
            f"and at most {MAX_INTERVAL:g}"
        )
    if kind == "ringbuf":
        if size is not None:
            raise MapError(
                f"{label}: size={size!r} is for perf buffers; that of a ring buffer is its "
                f"max_entries ({max_entries}), set when it is loaded"
            )
        return
    if size is not None and not (isinstance(size, int) and 0 < size <= MAX_SIZE):
        raise MapError(
            f"{label}: size={size!r} is no size of a buffer: a whole number of bytes for each CPU, "
            f"up to {MAX_SIZE}"
        )
    last = max(online_cpus())
    if last >= max_entries:
        raise MapError(
            f"{label} has no entry for CPU {last}, max_entries is {max_entries}: events from "
            "there would be lost and not counted; leave max_entries out, and libbpf sets it"
        )

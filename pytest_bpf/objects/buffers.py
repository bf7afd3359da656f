"""Opening the reading end of a ring or perf buffer."""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING

from pytest_bpf.errors import MapError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.perf_event import online_cpus
from pytest_bpf.kernel.perf_rings import PAGES, PerfRings
from pytest_bpf.kernel.ring import Ring

if TYPE_CHECKING:
    from pytest_bpf.objects.events import Buffer
    from pytest_bpf.objects.map import Map

MOST_SECONDS = 1.0
"""How long a reader that looks by itself may wait, since `Events.close` waits for it."""

MOST_BYTES = 1 << 30


def opened(of: Map, record: int, every: float | None, size: int | None) -> Buffer:
    """Return the buffer of a map, whose records have ``record`` bytes as far as is known.

    Raises `MapError` for options out of range, and when the kernel refuses.
    """
    what = f"map {of.name!r} ({of.type})"
    _check_options(of, what, every, size)
    fd, lagging = of.fd, every is not None
    try:
        if of.type == "ringbuf":
            return Ring(fd, of.max_entries, record, lagging=lagging)
        return PerfRings(fd, size, lagging=lagging)
    except OSError as error:
        code = error.errno or 0
        why = libbpf.reason(code)
        if of.type != "ringbuf" and code in {errno.EPERM, errno.ENOMEM}:
            why = f"no memory of {size or PAGES * mmap.PAGESIZE} bytes for each CPU ({why})"
        raise MapError(f"{what}: opening the reader failed: {why}", code) from None


def _check_options(of: Map, what: str, every: float | None, size: int | None) -> None:
    if every is not None and not (isinstance(every, (int, float)) and 0 < every <= MOST_SECONDS):
        raise MapError(
            f"{what}: every={every!r} is no time between two looks: it is in seconds, more than 0 "
            f"and at most {MOST_SECONDS:g}"
        )
    if of.type == "ringbuf":
        if size is not None:
            raise MapError(
                f"{what}: size={size!r} is for perf buffers; that of a ring buffer is its "
                f"max_entries ({of.max_entries}), set when it is loaded"
            )
        return
    if size is not None and not (isinstance(size, int) and 0 < size <= MOST_BYTES):
        raise MapError(
            f"{what}: size={size!r} is no size of a buffer: a whole number of bytes for each CPU, "
            f"up to {MOST_BYTES}"
        )
    last = max(online_cpus())
    if last >= of.max_entries:
        raise MapError(
            f"{what} has no entry for CPU {last}, max_entries is {of.max_entries}: events from "
            "there would be lost and not counted; leave max_entries out, and libbpf sets it"
        )

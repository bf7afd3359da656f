"""The order of memory accesses, as far as Python can have a say in it.

A position in shared memory is read and written as one aligned word: `ctypes` and `memoryview` do
that by a single load or store. What is left is the order in which another CPU sees them.
"""

from __future__ import annotations

import platform
import threading

IN_ORDER = platform.machine() in {"x86_64", "AMD64", "i686", "s390x"}
"""Whether the processor itself keeps loads in order, stores in order, and stores after loads."""

_lock = threading.Lock()


def barrier() -> None:
    """Order every access before it and every access after it.

    A lock is taken and given back twice. Giving it back is a release and taking it again an
    acquire of the same word; nothing moves past such a pair in either direction, on arm64 too.
    """
    for _ in range(2):
        with _lock:
            pass


def fence() -> None:
    """Order loads with what follows them and stores with what comes before them.

    What an acquire after a load and a release before a store do. Only a store and a later load
    may still change places; see `barrier`.
    """
    if not IN_ORDER:  # pragma: no cover
        barrier()

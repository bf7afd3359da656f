"""Wait until what is ready to run on a busy machine has run."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

LONGEST = 2.0
"""Seconds to wait for the turns of all CPUs."""

LOWEST = 19
"""The nice value of who comes after everybody else."""


def wait_for_turns() -> None:
    """Return when each CPU has let the lowest priority run, after about `LONGEST` at the latest.

    Kernel threads that were ready before, those that process packets (``ksoftirqd``, the NAPI
    threads, those of cpumaps), have had their turn by then. An idle machine takes a millisecond.
    """
    threads = [
        threading.Thread(target=_take_turn, args=(cpu,), daemon=True)
        for cpu in range(os.cpu_count() or 1)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LONGEST
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _take_turn(cpu: int) -> None:
    """Go to a CPU, sleep there for a moment, and be woken up after all others."""
    with suppress(OSError):  # a CPU that is off, or that this process may not use
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        os.sched_setaffinity(0, {cpu})
        time.sleep(0.0001)

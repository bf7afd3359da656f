"""Where a search runs: on one CPU, in a thread that has its name back afterwards."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_cpu() -> Iterator[list[int]]:
    """Keep this thread on one CPU, and with its name; yield the CPUs that it may use."""
    cpus = sorted(os.sched_getaffinity(0))
    with open("/proc/thread-self/comm", encoding="utf-8") as file:  # noqa: PTH123
        name = file.read().rstrip("\n")
    os.sched_setaffinity(0, cpus[:1])
    try:
        yield cpus
    finally:
        os.sched_setaffinity(0, cpus)
        with open("/proc/thread-self/comm", "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(name)

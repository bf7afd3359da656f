"""Exact numbers of system calls: in any number of threads, on chosen CPUs, in a place."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from mmap import PAGESIZE
from typing import TYPE_CHECKING, TypedDict

from pytest_bpf.errors import StimulusError, UnknownNameError, near_matches
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys.threads import run_together
from pytest_bpf.syscalls import loops
from pytest_bpf.traffic.result import check_range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Unpack

    from pytest_bpf.traffic.endpoint import Place

    Workload = Callable[[int], object]
    """Does its thing that many times; may return how many of them failed."""


LARGEST = 1 << 30
"""Bytes of one call, at most."""

MOST_THREADS = 1024
"""Threads of one workload, at most."""


class Where(TypedDict, total=False):
    """Where a loop runs: see `Syscalls`."""

    threads: int
    cpus: Sequence[int] | None
    namespace: Place | None
    cgroup: Place | None


@dataclass(frozen=True)
class SyscallResult:
    """The result of a loop: ``count`` calls in all, ``failures`` of them refused, in ``seconds``.

    ``seconds`` runs from the moment that every thread is ready to the end of the last one.
    """

    count: int
    failures: int
    seconds: float


@checked_methods
class Syscalls:
    """Loops of common system calls, and workloads of your own by name.

    Every call makes exactly ``count`` system calls of its kind, shared out evenly to ``threads``
    threads. With one thread and no ``cpus`` the loop runs in the calling thread. ``cpus`` pins
    the threads to these CPUs, one after another, at least one thread each; the calling thread
    is never pinned. ``namespace`` and ``cgroup`` are places to run in (anything with ``run``).
    Threads themselves cost the process a clone3 and an mmap each, and a ``cgroup`` an openat
    and a write on the way in and out; filter by thread or cgroup where that matters. Between
    system calls Python runs one thread at a time; to have a program run on several CPUs at once,
    use ``test_run(repeat=)`` in threads. Only private, anonymous files and no network packets
    are used.

    ``extra`` adds workloads: functions that take a count, and may return a number of failures.
    """

    def __init__(self, extra: Mapping[str, Workload] | None = None) -> None:
        self._workloads: dict[str, Workload] = {**loops.LOOPS, **(extra or {})}

    @property
    def names(self) -> tuple[str, ...]:
        """The names that `run` knows."""
        return tuple(self._workloads)

    def run(self, name: str, count: int = 1, **where: Unpack[Where]) -> SyscallResult:
        """Run the workload ``name``; raises `UnknownNameError` when there is none."""
        if name not in self._workloads:
            raise UnknownNameError(
                f"there is no workload {name!r}{near_matches(name, self._workloads)}"
            )
        return _run(self._workloads[name], count, **where)

    def read(self, count: int = 1, *, size: int = 64, **where: Unpack[Where]) -> SyscallResult:
        """``read`` (0 on x86-64) of ``size`` bytes from a memory file."""
        check_range("read: size", size, 0, LARGEST)
        return _run(partial(loops.read, size=size), count, **where)

    def write(self, count: int = 1, *, size: int = 64, **where: Unpack[Where]) -> SyscallResult:
        """``write`` (1) of ``size`` bytes to a memory file."""
        check_range("write: size", size, 0, LARGEST)
        return _run(partial(loops.write, size=size), count, **where)

    def openat(self, count: int = 1, **where: Unpack[Where]) -> SyscallResult:
        """``openat`` (257) of a memory file, each followed by a ``close``."""
        return _run(loops.openat, count, **where)

    def connect(self, count: int = 1, **where: Unpack[Where]) -> SyscallResult:
        """``connect`` (42) of a UDP socket to 127.0.0.1 port 9; no packet leaves."""
        return _run(loops.connect, count, **where)

    def getpid(self, count: int = 1, **where: Unpack[Where]) -> SyscallResult:
        """``getpid`` (39): as little as a system call can do."""
        return _run(loops.getpid, count, **where)

    def clone(self, count: int = 1, **where: Unpack[Where]) -> SyscallResult:
        """``clone3`` (435; ``clone``, 56, before glibc 2.34): joined threads."""
        return _run(loops.clone, count, **where)

    def execve(self, count: int = 1, **where: Unpack[Where]) -> SyscallResult:
        """``execve`` (59) of ``/bin/true`` in a child process, awaited before the next."""
        return _run(loops.execve, count, **where)

    def mmap(
        self, count: int = 1, *, size: int = PAGESIZE, **where: Unpack[Where]
    ) -> SyscallResult:
        """``mmap`` (9) of ``size`` bytes of anonymous memory, each followed by ``munmap``."""
        check_range("mmap: size", size, 1, LARGEST)
        return _run(partial(loops.mmap, size=size), count, **where)


def _run(
    workload: Workload,
    count: int,
    *,
    threads: int = 1,
    cpus: Sequence[int] | None = None,
    namespace: Place | None = None,
    cgroup: Place | None = None,
) -> SyscallResult:
    """Run ``workload`` in the places asked for, in the caller's thread unless others are needed."""
    check_range("count", count, 0)
    check_range("threads", threads, 1, MOST_THREADS)
    if cpus is None and threads == 1:
        running = partial(_timed, workload, count)
    else:
        if cpus is not None:
            _usable(cpus)
        number = max(threads, len(cpus or ()))
        running = partial(_in_threads, workload, count, number, tuple(cpus or ()))
    for place in (namespace, cgroup):
        if place is not None:
            running = partial(place.run, running)
    return running()


def _timed(workload: Workload, count: int) -> SyscallResult:
    start = time.perf_counter()
    failed = workload(count)
    seconds = time.perf_counter() - start
    return SyscallResult(count, failed if isinstance(failed, int) else 0, seconds)


def _in_threads(workload: Workload, count: int, threads: int, cpus: Sequence[int]) -> SyscallResult:
    """Share ``count`` out to threads that start together."""
    share, extra = divmod(count, threads)

    def work(number: int) -> int:
        return _timed(workload, share + (number < extra)).failures

    failed, seconds = run_together(work, threads, cpus)
    return SyscallResult(count, sum(failed), seconds)


def _usable(cpus: Sequence[int]) -> None:
    if not cpus:
        raise StimulusError("cpus is empty; name a CPU, or leave it out")
    usable = os.sched_getaffinity(0)
    if wrong := sorted(set(cpus) - usable):
        raise StimulusError(
            f"CPU {', '.join(map(str, wrong))} cannot be used: this process may run on "
            f"{', '.join(map(str, sorted(usable)))}"
        )

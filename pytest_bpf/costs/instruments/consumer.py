"""The process or thread that consumes the events: its CPU time, and its memory."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    import subprocess

    import psutil

    Consuming = int | threading.Thread | subprocess.Popen[Any] | psutil.Process
    """A process, by its id too, or a thread of this one."""

PROCESS_CLOCK, THREAD_CLOCK = 2, 6
"""``CPUCLOCK_SCHED``, of all threads or of one: in nanoseconds."""


@dataclass(frozen=True)
class Consumer:
    """Whoever consumes: ``number`` is its process id, or when ``thread`` its thread id."""

    number: int
    thread: bool

    @classmethod
    def find(cls, consuming: Consuming) -> Consumer:
        """Find its number; raises `BpfError` when it does not run."""
        if isinstance(consuming, threading.Thread):
            if consuming.native_id is None or not consuming.is_alive():
                raise BpfError(f"the consumer {consuming.name!r} does not run: start it first")
            return cls(consuming.native_id, thread=True)
        number = consuming if isinstance(consuming, int) else consuming.pid
        consumer = cls(number, thread=False)
        consumer.cpu_seconds()
        return consumer

    def cpu_seconds(self) -> float:
        """Return the CPU time it has had, user and kernel, of all its threads."""
        clock = ~self.number << 3 | (THREAD_CLOCK if self.thread else PROCESS_CLOCK)
        try:
            return time.clock_gettime(clock)
        except OSError:
            raise BpfError(f"the consumer, process {self.number}, does not run any more") from None

    def memory(self) -> int:
        """Return the bytes that would be free without it (USS); of a thread none of its own."""
        if self.thread:
            return 0
        import psutil  # noqa: PLC0415 (only who names a consumer needs it)

        try:
            return int(psutil.Process(self.number).memory_full_info().uss)
        except psutil.NoSuchProcess:
            raise BpfError(f"the consumer, process {self.number}, does not run any more") from None

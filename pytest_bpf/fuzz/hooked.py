"""Programs that cannot be test-run: both are attached, and a stimulus makes them run.

A build of such a program is gated: it runs in this thread alone, and only while its input is there,
so that what other processes do in the meantime counts for none of the two.
"""

from __future__ import annotations

import mmap
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_bpf.errors import RunError
from pytest_bpf.kernel.programs import load
from pytest_bpf.kernel.programs.counters import CURRENT
from pytest_bpf.kernel.programs.runner import ContextRunner
from pytest_bpf.objects.programs.twin import mmapable_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_bpf.objects import Link, Program
    from pytest_bpf.objects.programs.twin import Twin

TYPES = frozenset({"kprobe", "tracepoint", "tracing", "raw_tracepoint", "lsm"})
"""The types of programs that can be attached several times, and that may ask which thread it is."""

SIZE = 16
"""The bytes of an input that a stimulus gets."""

BITS = 31
"""How many programs a gate is for: hits and operands of two, and few that count."""


class Stimulus:
    """What makes programs run: ``run(data)`` gets an input, ``attach(program)`` returns a link.

    All its programs have one gate, which opens for several of them at once.
    """

    def __init__(
        self, run: Callable[[bytes], object], attach: Callable[[Program], Link] | None = None
    ) -> None:
        self.run, self.attach = run, attach or (lambda program: program.attach())
        self.name = getattr(run, "__name__", "the stimulus")
        self._thread, self._bits = _this_thread(), 0
        self._fd = mmapable_array(8)
        self._memory = mmap.mmap(self._fd, mmap.PAGESIZE, mmap.MAP_SHARED)
        self._gate = memoryview(self._memory)[:8].cast("Q")

    def next_gate(self) -> tuple[int, int]:
        """Return the gate of one more program."""
        self._bits += 1
        return self._fd, 1 << (self._bits - 1) % BITS

    @contextmanager
    def open(self, twins: Sequence[Twin]) -> Iterator[None]:
        """Let some programs run in this thread for a while, all from the same moment on."""
        bits = sum(twin.gate[1] for twin in twins if twin.gate is not None)
        self._gate[0] = bits << 32 | self._thread
        try:
            yield
        finally:
            self._gate[0] = 0

    def close(self) -> None:
        """Let go of the gate, which the programs still have."""
        self._gate.release()
        self._memory.close()
        os.close(self._fd)


def check_driven(program: Program) -> None:
    """Raise `RunError` for a program that no stimulus can drive."""
    if program.type not in TYPES:
        raise RunError(
            f"program {program.name!r} is of type {program.type}; a stimulus drives programs of "
            f"tracing: {', '.join(sorted(TYPES))}"
        )


def _this_thread() -> int:
    """Return the number of this thread as programs see it, whatever namespace it is in."""
    with load.program("raw_tracepoint", instructions=load.calling(CURRENT)) as fd:
        number = ContextRunner(0).run(fd, b"")
    if number < 0:
        raise RunError("the kernel does not run a raw tracepoint program for a test (5.10 does)")
    return number

"""What programs ran, batch by batch, and beside each batch what two fixed programs read."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_bpf.costs.instruments.instrument import FixedProgram, Instrument, empty_of, instrument
from pytest_bpf.costs.instruments.reference import Reference
from pytest_bpf.kernel.programs.run_time_stats import statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from pytest_bpf.kernel.sys.info import ProgramInfo
    from pytest_bpf.objects import Program


@dataclass(frozen=True)
class Runs:
    """What one program did in one batch: runs, their nanoseconds in all, and runs left out."""

    runs: int
    run_time_ns: int
    missed: int

    @property
    def per_run(self) -> float:
        """Nanoseconds of a run, in exact mode instructions; there must have been one."""
        return self.run_time_ns / self.runs


@dataclass(frozen=True)
class Batch:
    """One batch: ``seconds`` of wall time, of the ``consumer``'s CPU time, a reading by program.

    ``reference`` is what `Reference` read right after it, in ns; 0 in exact mode, where nothing
    disturbs.
    """

    seconds: float
    consumer: float
    reference: float
    programs: Mapping[str, Runs]


class Meter:
    """Reads ``programs``, with the kernel's statistics on from ``__enter__`` to ``__exit__``.

    ``consumer`` returns the CPU seconds of whoever consumes the events. Raises `UnavailableError`
    where the kernel has no statistics, or should count exactly and does not.
    """

    def __init__(
        self, programs: Mapping[str, Program], consumer: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.programs = dict(programs)
        self.batches: list[Batch] = []
        self._consumer = consumer
        self._least_empty = math.inf
        self._stack = ExitStack()

    @cached_property
    def instrument(self) -> Instrument:
        """What measures here."""
        return instrument()

    def __enter__(self) -> Self:
        exact = self.instrument.exact
        with ExitStack() as stack:
            stack.enter_context(statistics())
            self._fixed: list[FixedProgram | Reference]
            self._fixed = [] if exact else [FixedProgram(), Reference()]
            for program in self._fixed:
                stack.enter_context(program)
            self._read_fixed()  # their first run is cold
            self._stack = stack.pop_all()
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Begin a batch here: what went before belongs to none."""
        self._before = {name: program.info for name, program in self.programs.items()}
        self._consumer_start = self._consumer()
        self._start = time.perf_counter()

    def begin_when_quiet(self) -> None:
        """Begin a batch when nothing disturbs the machine, or after a second at most."""
        for program in self._fixed:
            if isinstance(program, Reference):
                program.wait_until_quiet()
        self.begin()

    def end(self) -> None:
        """End the batch; the next begins."""
        seconds = time.perf_counter() - self._start
        consumer_seconds = self._consumer() - self._consumer_start
        readings = {
            name: _between(self._before[name], program.info)
            for name, program in self.programs.items()
        }
        empty, reference = self._read_fixed()
        self._least_empty = min(self._least_empty, empty)
        self.batches.append(Batch(seconds, consumer_seconds, reference, readings))
        self.begin()

    def _read_fixed(self) -> tuple[float, float]:
        """Return what the empty program and the reference read now."""
        if not self._fixed:
            return self.instrument.empty, 0.0
        empty, reference = (program.per_run() for program in self._fixed)
        return empty, reference

    def empty_of(self, program: Program) -> float | None:
        """Return what an empty program reads that is called as ``program`` is.

        It is the least it read beside the batches: what disturbs it would make others cheaper.
        """
        empty = empty_of(program.section)
        return None if empty is None else self._least_empty * empty / self.instrument.empty


def _between(before: ProgramInfo, after: ProgramInfo) -> Runs:
    return Runs(
        after.run_cnt - before.run_cnt,
        after.run_time_ns - before.run_time_ns,
        after.recursion_misses - before.recursion_misses,
    )

"""What one run of a program costs, by whichever instrument this kernel has."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Literal, Protocol

from pytest_bpf.costs.instrument import instrument, trampoline
from pytest_bpf.costs.statistics import statistics
from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects import Program


@dataclass(frozen=True)
class RunCost:
    """What one run of ``program`` costs, in ``unit``.

    ``unit`` names the instrument: ``"ns"`` of the running kernel's clock, or ``"instructions"`` of
    the guest in exact mode. ``per_run`` is the median of ``batches`` batches, ``lower`` and
    ``upper`` their quartiles, ``runs`` how often the program ran in all of them. ``empty`` is what
    a program that only returns reads when it is called in the same way; it is not subtracted.
    """

    program: str
    unit: Literal["ns", "instructions"]
    per_run: float
    lower: float
    upper: float
    empty: float | None
    batches: int
    runs: int

    def __str__(self) -> str:
        return f"{self.program}: {self.per_run:.6g} {self.unit} per run, {self.runs} runs"


class Measure(Protocol):
    """What `measure` is; the fixture ``bpf_measure`` gives it."""

    def __call__(
        self, program: Program, drive: Callable[[], object], *, batches: int = 30
    ) -> RunCost:
        """Measure one run of ``program``."""


def measure(program: Program, drive: Callable[[], object], *, batches: int = 30) -> RunCost:
    """Measure one run of ``program``, which ``drive`` makes run some times, the same each call.

    ``drive`` is called once to warm up and then once a batch; let it make about a hundred runs.
    The kernel's statistics are on meanwhile (`statistics`). An interrupt in a run falls into one
    batch, so the median knows nothing of it.

    Raises `BpfError` when ``drive`` does not make the program run, `UnavailableError` when the
    kernel has no statistics, or when it should count exactly and does not.
    """
    if batches < 1:
        raise BpfError(f"measuring program {program.name!r} takes one batch at least: {batches=}")
    used = instrument()
    figures, total = [], 0
    with statistics():
        drive()
        before = program.info
        for number in range(1, batches + 1):
            drive()
            after = program.info
            runs = after.run_cnt - before.run_cnt
            if not runs:
                raise BpfError(
                    f"program {program.name!r} did not run in batch {number} of {batches}: is it "
                    "attached, and does what is called make it run?"
                )
            figures.append((after.run_time_ns - before.run_time_ns) / runs)
            total += runs
            before = after
    lower, middle, upper = quantiles(figures, method="inclusive") if batches > 1 else figures * 3
    empty = trampoline() if _by_trampoline(program) else used.empty
    return RunCost(program.name, used.unit, middle, lower, upper, empty, batches, total)


def _by_trampoline(program: Program) -> bool:
    return program.section.startswith(("fentry", "fexit", "fmod_ret", "lsm"))

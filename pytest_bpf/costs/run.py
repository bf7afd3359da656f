"""What one run of a program costs, by whichever instrument this kernel has."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Literal, Protocol

from pytest_bpf.costs.figures.figure import NEVER_RAN, Figure, Instrument
from pytest_bpf.costs.figures.intervals import figure_of
from pytest_bpf.costs.instruments.dispatcher import in_dispatcher
from pytest_bpf.costs.instruments.meter import Meter
from pytest_bpf.errors import BpfError
from pytest_bpf.errors.arguments import checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects import Program


@dataclass(frozen=True)
class RunCost:
    """What one run of ``program`` costs, in ``unit``.

    ``unit`` names the instrument: ``"ns"`` of the running kernel's clock, or ``"instructions"`` of
    the guest in exact mode. ``per_run`` is the median of ``batches`` batches, ``lower`` and
    ``upper`` their quartiles, ``runs`` how often the program ran in all of them. ``empty`` is what
    a program that only returns reads when it is called in the same way; it is not subtracted here,
    but in ``figure``.
    """

    program: str
    unit: Literal["ns", "instructions"]
    per_run: float
    lower: float
    upper: float
    empty: float | None
    batches: int
    runs: int
    figure: Figure

    def __str__(self) -> str:
        return f"{self.program}: {self.per_run:.6g} {self.unit} per run, {self.runs} runs"

    def figures(self) -> tuple[Figure, ...]:
        """Return the one figure: ``run_time``, or in exact mode ``instructions``."""
        return (self.figure,)


class Measure(Protocol):
    """What `measure` is; the fixture ``bpf_measure`` gives it."""

    def __call__(
        self, program: Program, drive: Callable[[], object], *, batches: int = 30
    ) -> RunCost:
        """Measure one run of ``program``."""


@checked
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
    with in_dispatcher([program]), Meter({program.name: program}) as meter:
        drive()
        meter.begin_when_quiet()
        for number in range(1, batches + 1):
            drive()
            meter.end()
            if not meter.batches[-1].programs[program.name].runs:
                raise BpfError(
                    f"program {program.name!r} did not run in batch {number} of {batches}: is it "
                    "attached, and does what is called make it run?"
                )
    readings = [batch.programs[program.name] for batch in meter.batches]
    figures = [reading.per_run for reading in readings]
    lower, middle, upper = quantiles(figures, method="inclusive") if batches > 1 else figures * 3
    return RunCost(
        program=program.name,
        unit=meter.instrument.unit,
        per_run=middle,
        lower=lower,
        upper=upper,
        empty=meter.empty_of(program),
        batches=batches,
        runs=sum(reading.runs for reading in readings),
        figure=per_run(meter, program),
    )


def per_run(meter: Meter, program: Program) -> Figure:
    """Return what one run costs more than one of an empty program, over a meter's batches.

    The metric is ``run_time``, in exact mode ``instructions``. Batches in which the program did
    not run say nothing. One batch alone has no interval.
    """
    exact, subject = meter.instrument.exact, f"prog {program.name}"
    metric = "instructions" if exact else "run_time"
    how: Instrument = "exact" if exact else "clock"
    ran = [batch for batch in meter.batches if batch.programs[program.name].runs]
    if not ran:
        return Figure.missing(metric, subject, NEVER_RAN, how)
    empty = meter.empty_of(program)
    if empty is None:
        why = "what an empty program takes that is called in this way cannot be measured here"
        return Figure.missing(metric, subject, why, how)
    samples = [batch.programs[program.name].per_run - empty for batch in ran]
    reference = () if exact else [batch.reference for batch in ran]
    return figure_of(metric, subject, samples, how, reference)

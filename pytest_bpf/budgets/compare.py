"""A figure against an earlier one, and two result files against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pytest_bpf.budgets.change import DRIFT, Outcome, Samples, change
from pytest_bpf.budgets.findings import Finding, Verdict, bounds_of, measurement_lines
from pytest_bpf.budgets.tolerance import Tolerance, tolerance_for
from pytest_bpf.costs.figures.figure import METRICS, Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.budgets.results import Key

LEAST = 5.0
"""A change of a run time, in ns, that is always allowed. A run time is the difference of two
readings of about 50 ns, and each of these can change by a tenth from one load to the next."""

IN_NO_BASELINE = "it is in no baseline"

WORKLOAD_METRICS = frozenset({"run_cnt", "missed", "events", "loss"})
"""Metrics that tell how much was done, and not what it cost."""

DERIVED_METRICS = frozenset({"total_states", "peak_states", "memory"})
"""Metrics that change with others: with ``verified_insns``, with sizes and memory of the parts."""


@dataclass(frozen=True)
class Comparison(Finding):
    """A figure that was held against an earlier one."""

    before: Figure
    figure: Figure
    allowed: Tolerance

    @property
    def headline(self) -> str:
        """Both figures, and by how much."""
        return f"{self.label} {self.summary}"

    @property
    def room(self) -> str:
        """How much worse is allowed, in words."""
        return self.allowed.describe(METRICS[self.metric].unit)

    @property
    def summary(self) -> str:
        """The same without the name."""
        before, after = self.before.value or 0.0, self.figure.value or 0.0
        if before == after:
            return f"{self._show(before)}, as before"
        return f"{self._show(before)} -> {self._show(after)}: {self._by(before, after)}"

    def details(self, verbosity: int) -> list[str]:
        """Return how both were measured."""
        lines = []
        for when, figure in (("before", self.before), ("now", self.figure)):
            lines += [f"{when}: {line}" for line in measurement_lines(figure, verbosity)]
        return lines


@dataclass(frozen=True)
class Same(Comparison):
    """It did not get worse by more than is allowed."""

    kind: ClassVar[str] = "same"


@dataclass(frozen=True)
class Better(Comparison):
    """It got better; a new baseline would keep it so."""

    kind: ClassVar[str] = "better"


@dataclass(frozen=True)
class Worse(Comparison):
    """It got worse by more than is allowed."""

    verdict: ClassVar[Verdict] = "fail"
    kind: ClassVar[str] = "worse"

    @property
    def headline(self) -> str:
        """Both figures, by how much, and how much is allowed."""
        return f"{super().headline}, where {self.room} is allowed"


@dataclass(frozen=True)
class Uncertain(Comparison):
    """Whether it got worse by more than is allowed cannot be told; ``why`` where that is known."""

    why: str = ""

    verdict: ClassVar[Verdict] = "inconclusive"
    kind: ClassVar[str] = "uncertain"

    @property
    def headline(self) -> str:
        """Both figures, and that they do not decide."""
        return f"{super().headline}; whether that is more than {self.room} cannot be told"

    @property
    def summary(self) -> str:
        """Both figures, and why they do not decide."""
        return f"{super().summary}, {self.why}" if self.why else super().summary


@dataclass(frozen=True)
class AcceptedChange(Comparison):
    """It may have got worse, and the new figure takes the old one's place.

    ``change`` is what it is when the figure does not: when its test fails for another reason.
    """

    change: Comparison

    kind: ClassVar[str] = "accepted"


@dataclass(frozen=True)
class NewFigure(Finding):
    """There is no earlier figure; ``why`` says why not."""

    figure: Figure
    why: str = field(default=IN_NO_BASELINE, kw_only=True)

    kind: ClassVar[str] = "new"

    @property
    def headline(self) -> str:
        """The figure."""
        return f"{self.label} {self._show(self.figure.value or 0.0)} is new: {self.why}"

    @property
    def summary(self) -> str:
        """The figure without its name."""
        return f"{self._show(self.figure.value or 0.0)}, {self.kind}"


@dataclass(frozen=True)
class NoBaseline(NewFigure):
    """There is no earlier figure, and there must be one."""

    file: str

    verdict: ClassVar[Verdict] = "fail"
    kind: ClassVar[str] = "required"

    @property
    def headline(self) -> str:
        """The figure, and where it should be."""
        value = self._show(self.figure.value or 0.0)
        where = f"has no baseline in {self.file}"
        return f"{self.label} {value} {where}, and must (--bpf-require-baseline)"


@dataclass(frozen=True)
class NoLongerMeasured(Finding):
    """There was a figure, and now there is none."""

    before: Figure
    why_not: str = ""

    verdict: ClassVar[Verdict] = "not measured"
    kind: ClassVar[str] = "gone"

    @property
    def headline(self) -> str:
        """What it was."""
        why = self.why_not or "it is not in the second file"
        return f"{self.label} was {self._show(self.before.value or 0.0)}, and now: {why}"


KINDS: Mapping[Outcome, type[Comparison]] = {
    "slower": Worse,
    "faster": Better,
    "same": Same,
    "inconclusive": Uncertain,
}


def comparable(figure: Figure) -> bool:
    """Say whether a figure tells the same in another run.

    It must be certain, or tell how uncertain it is; one that was read in one go does not.
    """
    return figure.lower is not None and figure.metric not in WORKLOAD_METRICS


def worth_keeping(figure: Figure) -> bool:
    """Say whether a baseline keeps a figure."""
    return comparable(figure) and figure.metric not in DERIVED_METRICS


def steady(figure: Figure, changes: Mapping[str, Tolerance]) -> bool:
    """Say whether a figure may be held against one of another run.

    A time without a fixed program's reading beside it (a latency, an overhead, a rate) is the
    machine's as much as the program's: it takes somebody to say how much it may change.
    """
    return figure.instrument != "clock" or bool(figure.reference) or figure.metric in changes


def compare(before: Figure | None, after: Figure, allowed: Tolerance) -> Finding:
    """Return what became of a figure; ``before`` is None for a new one."""
    about = (after.metric, after.subject)
    if before is None or before.value is None:
        return NewFigure(*about, after)
    outcome, why = _outcome(before, after, allowed)
    if outcome == "inconclusive":
        return Uncertain(*about, before, after, allowed, why)
    return KINDS[outcome](*about, before, after, allowed)


def compare_all(
    before: Mapping[Key, Figure], after: Mapping[Key, Figure], changes: Mapping[str, Tolerance]
) -> dict[Key, Finding]:
    """Return what became of each figure of either, in the order of the keys."""
    findings: dict[Key, Finding] = {}
    for key in sorted({**before, **after}):
        old, new = before.get(key), after.get(key)
        if any(
            figure and figure.value is not None and not comparable(figure) for figure in (old, new)
        ):
            continue
        if new is None or new.value is None:
            if old is not None and old.value is not None:
                why_not = new.why_not if new else ""
                findings[key] = NoLongerMeasured(key.metric, key.subject, old, why_not)
            continue
        if steady(new, changes):
            allowed = tolerance_for(key.metric, new.instrument, changes)
            findings[key] = compare(old, new, allowed)
    return findings


def _outcome(before: Figure, after: Figure, allowed: Tolerance) -> tuple[Outcome, str]:
    """Return how it compares, and why not when it cannot be told."""
    assert before.value is not None
    room = max(allowed.room(before.value), _least(before))
    old, new = (before, after) if METRICS[after.metric].better == "lower" else (after, before)
    if old.samples and new.samples and not (_certain(old) and _certain(new)):
        drift = 0.0 if after.instrument == "exact" else DRIFT
        then, now = (Samples(figure.samples, figure.reference) for figure in (old, new))
        difference = change(then, now, room, drift=drift)
        return difference.verdict, difference.why
    (old_lower, old_upper), (new_lower, new_upper) = bounds_of(old), bounds_of(new)
    if new_lower - old_upper > room:
        return "slower", ""
    most = new_upper - old_lower
    if most > room:
        return "inconclusive", ""
    return "faster" if most < -room else "same", ""


def _least(before: Figure) -> float:
    """Return what a figure may change by in any case: nothing, but for run times."""
    return LEAST if before.metric == "run_time" and before.instrument == "clock" else 0.0


def _certain(figure: Figure) -> bool:
    return figure.lower == figure.value == figure.upper

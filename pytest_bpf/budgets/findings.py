"""What was found of a figure: one dataclass a kind, each with a headline and details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pytest_bpf.budgets.quantity import format_change, format_value
from pytest_bpf.costs.figures.figure import METRICS, Figure
from pytest_bpf.errors import near_matches

if TYPE_CHECKING:
    from pytest_bpf.budgets.limits import Limit

Verdict = Literal["pass", "warning", "fail", "inconclusive", "not measured"]


@dataclass(frozen=True)
class Finding:
    """What was found of ``metric`` of ``subject``."""

    metric: str
    subject: str

    verdict: ClassVar[Verdict] = "pass"
    kind: ClassVar[str] = ""

    @property
    def label(self) -> str:
        """The metric and whose it is: ``"prog count: run_time"``."""
        return f"{self.subject}: {self.metric}" if self.subject else self.metric

    @property
    def headline(self) -> str:
        """One sentence, with both figures and by how much."""
        raise NotImplementedError

    @property
    def summary(self) -> str:
        """The least that a table can show of it, without its name."""
        return self.kind

    def details(self, verbosity: int) -> list[str]:  # noqa: ARG002 (kinds with more to say do)
        """Return further lines, more of them with more ``-v``."""
        return []

    def _show(self, value: float) -> str:
        return format_value(value, METRICS[self.metric].unit)

    def _by(self, before: float, after: float) -> str:
        return format_change(before, after, METRICS[self.metric].unit)


@dataclass(frozen=True)
class LimitCheck(Finding):
    """A figure that was held against a limit."""

    figure: Figure
    limit: Limit

    @property
    def value(self) -> float:
        """The figure's value."""
        assert self.figure.value is not None
        return self.figure.value

    @property
    def summary(self) -> str:
        """The figure and its limit."""
        bound = self.limit.target if self.limit.alarm is None else self.limit.alarm
        relation = "of" if METRICS[self.metric].better == "lower" else "of at least"
        return f"{self._show(self.value)} {relation} {self._show(bound or 0.0)}"

    def details(self, verbosity: int) -> list[str]:
        """Return how the figure was measured, and whose the limit is."""
        return [f"limit of the {self.limit.origin}", *measurement_lines(self.figure, verbosity)]


@dataclass(frozen=True)
class WithinLimit(LimitCheck):
    """It keeps its limit."""

    kind: ClassVar[str] = "within"

    @property
    def headline(self) -> str:
        """Both figures."""
        return f"{self.label} {self._show(self.value)} keeps its limit, {self.limit}"


@dataclass(frozen=True)
class OverLimit(LimitCheck):
    """It is beyond its alarm, or beyond the only limit that it has."""

    verdict: ClassVar[Verdict] = "fail"
    kind: ClassVar[str] = "broken"

    @property
    def bound(self) -> float:
        """The limit."""
        assert self.limit.alarm is not None
        return self.limit.alarm

    @property
    def headline(self) -> str:
        """Both figures, and by how much."""
        return (
            f"{self.label} {self._show(self.value)} breaks its limit of {self._show(self.bound)}: "
            f"{self._by(self.bound, self.value)}"
        )


@dataclass(frozen=True)
class OverTarget(LimitCheck):
    """It is beyond its target, and not beyond its alarm."""

    verdict: ClassVar[Verdict] = "warning"
    kind: ClassVar[str] = "missed"

    @property
    def summary(self) -> str:
        """The figure and its target."""
        return f"{self._show(self.value)}, target {self._show(self.limit.target or 0.0)}"

    @property
    def headline(self) -> str:
        """Both figures, and by how much."""
        target = self.limit.target or 0.0
        return (
            f"{self.label} {self._show(self.value)} misses its target of {self._show(target)}: "
            f"{self._by(target, self.value)}"
        )


@dataclass(frozen=True)
class NearLimit(LimitCheck):
    """The limit lies within the figure's own uncertainty."""

    verdict: ClassVar[Verdict] = "inconclusive"
    kind: ClassVar[str] = "undecided"

    @property
    def headline(self) -> str:
        """The interval and the limit."""
        lower, upper = bounds_of(self.figure)
        advice = "" if self.figure.lower is not None else "; measure it in batches, by bpf_measure"
        return (
            f"{self.label} {self._show(self.value)} lies between {self._show(lower)} and "
            f"{self._show(upper)}: it cannot be told from its limit, {self.limit}{advice}"
        )


@dataclass(frozen=True)
class NotMeasured(Finding):
    """There is no figure to judge."""

    limit: Limit
    why_not: str

    verdict: ClassVar[Verdict] = "not measured"
    kind: ClassVar[str] = "unmeasured"

    @property
    def summary(self) -> str:
        """Why not."""
        return f"not measured: {self.why_not}"

    @property
    def headline(self) -> str:
        """Why not, and what the limit is."""
        return f"{self.label} not measured: {self.why_not} (limit: {self.limit})"


@dataclass(frozen=True)
class NeverRan(Finding):
    """A limit on the runs of a program that made none."""

    limit: Limit

    verdict: ClassVar[Verdict] = "fail"
    kind: ClassVar[str] = "never ran"

    @property
    def headline(self) -> str:
        """What to look for."""
        return (
            f"{self.subject or 'no program'}: never ran, so its limit, {self.limit}, was not put "
            "to the test: is it attached, and does the test make it run?"
        )


@dataclass(frozen=True)
class UnknownSubject(Finding):
    """A limit for a program or map that is not there."""

    limit: Limit
    subjects: tuple[str, ...]

    verdict: ClassVar[Verdict] = "fail"
    kind: ClassVar[str] = "unknown"

    @property
    def headline(self) -> str:
        """What is there."""
        kind, _, name = self.subject.partition(" ")
        kind_name = "program" if kind == "prog" else kind
        names = (other.partition(" ")[2] for other in self.subjects if other.startswith(f"{kind} "))
        return f"there is no {kind_name} {name!r} in this test to limit{near_matches(name, names)}"


def bounds_of(figure: Figure) -> tuple[float, float]:
    """Return between what the true value lies.

    A single batch says nothing about the spread. A busy machine makes a figure worse, never better.
    So the true value is at most as bad as the reading, and at most twice as good.
    """
    assert figure.value is not None
    if figure.lower is not None and figure.upper is not None:
        return figure.lower, figure.upper
    if METRICS[figure.metric].better == "lower":
        return figure.value / 2, figure.value
    return figure.value, figure.value * 2


def measurement_lines(figure: Figure, verbosity: int) -> list[str]:
    """Return how a figure was measured, in more words with more ``-v``."""
    unit = METRICS[figure.metric].unit
    lines = []
    lower, upper = bounds_of(figure)
    if lower != upper:
        lines.append(f"between {format_value(lower, unit)} and {format_value(upper, unit)}")
    if verbosity > 0:
        count = len(figure.samples)
        batches = f", {count} batches" if count > 1 else ", read in one go" if count else ""
        lines.append(f"by the instrument {figure.instrument!r}{batches}")
    if verbosity > 1 and figure.samples:
        lines.append("batches: " + " ".join(f"{sample:.6g}" for sample in figure.samples))
    return lines


def as_dict(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain values, as reports keep it."""
    figure: Figure | None = getattr(finding, "figure", None)
    limit: Limit | None = getattr(finding, "limit", None)
    before: Figure | None = getattr(finding, "before", None)
    fields = {
        "metric": finding.metric,
        "subject": finding.subject,
        "verdict": finding.verdict,
        "kind": finding.kind,
        "headline": finding.headline,
        "summary": finding.summary,
        "value": figure.value if figure else None,
        "target": limit.target if limit else None,
        "limit": limit.alarm if limit else None,
        "before": before.value if before else None,
    }
    return {name: value for name, value in fields.items() if value is not None}

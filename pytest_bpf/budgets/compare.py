"""A figure against an earlier one, and two result files against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_bpf.budgets.allowed import Allowed, allowed_for
from pytest_bpf.budgets.findings import Finding, Verdict, interval, measured
from pytest_bpf.costs.figure import METRICS, Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.budgets.results import Key

NOT_KEPT = frozenset({"run_cnt", "missed", "events", "loss"})
"""Metrics that tell of the workload, and of whoever else made a program run."""


@dataclass(frozen=True)
class Compared(Finding):
    """A figure that was held against an earlier one."""

    before: Figure
    figure: Figure
    allowed: Allowed

    @property
    def both(self) -> str:
        """Both figures, and the change."""
        before, after = self.before.value or 0.0, self.figure.value or 0.0
        unchanged = before == after
        was = f"{self.what} {self._show(before)}"
        return (
            f"{was}, as before"
            if unchanged
            else f"{was} -> {self._show(after)}: {self._by(before, after)}"
        )

    @property
    def headline(self) -> str:
        """Both figures, and by how much."""
        return self.both

    def details(self, verbosity: int) -> list[str]:
        """Return how both were measured."""
        lines = []
        for when, figure in (("before", self.before), ("now", self.figure)):
            lines += [f"{when}: {line}" for line in measured(figure, verbosity)]
        return lines


@dataclass(frozen=True)
class Same(Compared):
    """It did not get worse by more than is allowed."""

    kind: ClassVar[str] = "same"


@dataclass(frozen=True)
class Better(Compared):
    """It got better; a new baseline would keep it so."""

    kind: ClassVar[str] = "better"


@dataclass(frozen=True)
class Worse(Compared):
    """It got worse by more than is allowed."""

    verdict: ClassVar[Verdict] = "fail"
    kind: ClassVar[str] = "worse"

    @property
    def headline(self) -> str:
        """Both figures, by how much, and how much is allowed."""
        allowed = self.allowed.told(METRICS[self.metric].unit)
        return f"{self.both}, where {allowed} is allowed"


@dataclass(frozen=True)
class Uncertain(Compared):
    """Whether it got worse by more than is allowed cannot be told from what was measured."""

    verdict: ClassVar[Verdict] = "inconclusive"
    kind: ClassVar[str] = "uncertain"

    @property
    def headline(self) -> str:
        """Both figures, and that they do not decide."""
        allowed = self.allowed.told(METRICS[self.metric].unit)
        return f"{self.both}; whether that is more than {allowed} cannot be told"


@dataclass(frozen=True)
class New(Finding):
    """There is no earlier figure."""

    figure: Figure

    kind: ClassVar[str] = "new"

    @property
    def headline(self) -> str:
        """The figure."""
        return f"{self.what} {self._show(self.figure.value or 0.0)} is new: it is in no baseline"


@dataclass(frozen=True)
class Required(New):
    """There is no earlier figure, and there must be one."""

    verdict: ClassVar[Verdict] = "fail"
    kind: ClassVar[str] = "required"


@dataclass(frozen=True)
class Gone(Finding):
    """There was a figure, and now there is none."""

    before: Figure
    why_not: str = ""

    verdict: ClassVar[Verdict] = "not measured"
    kind: ClassVar[str] = "gone"

    @property
    def headline(self) -> str:
        """What it was."""
        why = self.why_not or "it is not in the second file"
        return f"{self.what} was {self._show(self.before.value or 0.0)}, and now: {why}"


def comparable(figure: Figure) -> bool:
    """Say whether a figure tells the same in another run, so that a baseline keeps it.

    It must be certain or have samples to compare; one that was read in one go is noise.
    """
    if figure.value is None or figure.metric in NOT_KEPT:
        return False
    return bool(figure.samples) or figure.lower == figure.value == figure.upper


def compare(before: Figure | None, after: Figure, allowed: Allowed) -> Finding:
    """Return what became of a figure; ``before`` is None for a new one."""
    about = (after.metric, after.subject)
    if before is None or before.value is None:
        return New(*about, after)
    kinds = {"slower": Worse, "faster": Better, "same": Same, "inconclusive": Uncertain}
    return kinds[_verdict(before, after, allowed)](*about, before, after, allowed)


def compare_all(
    before: Mapping[Key, Figure], after: Mapping[Key, Figure], changes: Mapping[str, Allowed]
) -> dict[Key, Finding]:
    """Return what became of each figure of either, in the order of the keys."""
    findings: dict[Key, Finding] = {}
    for key in sorted({**before, **after}):
        old, new = before.get(key), after.get(key)
        if new is None or new.value is None:
            if old is not None and old.value is not None:
                why_not = new.why_not if new else ""
                findings[key] = Gone(key.metric, key.subject, old, why_not)
            continue
        allowed = allowed_for(key.metric, new.instrument, changes)
        findings[key] = compare(old, new, allowed)
    return findings


def _verdict(before: Figure, after: Figure, allowed: Allowed) -> str:
    assert before.value is not None
    room = allowed.room(before.value)
    sign = 1 if METRICS[after.metric].better == "lower" else -1
    old, new = (sorted(sign * bound for bound in interval(figure)) for figure in (before, after))
    least, most = new[0] - old[1], new[1] - old[0]
    if least > room:
        return "slower"
    if most > room:
        return "inconclusive"
    return "faster" if most < -room and most < 0 else "same"

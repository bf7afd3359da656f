"""A baseline in use: what it holds for a figure, and what is said where it holds nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from pytest_bpf.budgets import results
from pytest_bpf.budgets.compare import (
    IN_NO_BASELINE,
    AcceptedChange,
    Comparison,
    NewFigure,
    NoBaseline,
    compare,
    steady,
    worth_keeping,
)
from pytest_bpf.budgets.environment import Environment, here
from pytest_bpf.budgets.results import Key, Results
from pytest_bpf.budgets.tolerance import Tolerance, tolerance_for
from pytest_bpf.budgets.tolerance import parse as parse_allowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_bpf.budgets.findings import Finding
    from pytest_bpf.costs.figures.figure import Figure


NOT_MEASURED_THEN = "it was not measured when the baseline was saved"


@dataclass(frozen=True)
class OtherEnvironment(NewFigure):
    """The baseline has this test's figures, of another kernel, compiler or machine."""

    environments: tuple[Environment, ...]
    now: Environment

    kind: ClassVar[str] = "elsewhere"

    @property
    def headline(self) -> str:
        """What it is of, and what is here."""
        places = " and of ".join(map(str, self.environments))
        return f"{self.label} is not compared: the baseline is of {places}, and this is {self.now}"


@dataclass(frozen=True)
class Baseline:
    """A baseline that figures are held against; ``old`` is empty where there is no file yet.

    ``why_new`` says why a figure is not in it.
    """

    path: Path
    old: Results
    allowed: Mapping[str, Tolerance] = field(default_factory=dict)
    require: bool = False
    accept: bool = False
    why_new: str = IN_NO_BASELINE

    @classmethod
    def open(
        cls,
        path: Path,
        allowed: Mapping[str, Tolerance],
        *,
        require: bool = False,
        accept: bool = False,
    ) -> Baseline:
        """Read it; ``allowed`` goes before what the file itself allows.

        Raises `ResultFileError` and `ToleranceError`.
        """
        old = results.read(path) if path.exists() else Results()
        return cls(
            path,
            old,
            {**parse_allowed(old.allowed), **allowed},
            require=require,
            accept=accept,
        )

    def finding(self, key: Key, figure: Figure) -> Finding:
        """Return what became of a figure."""
        allowed = tolerance_for(figure.metric, figure.instrument, self.allowed)
        before = self.old.figures.get(key)
        finding = compare(before, figure, allowed)
        if isinstance(finding, NewFigure):
            return self._unknown(key, figure)
        if self.accept and finding.verdict != "pass" and isinstance(finding, Comparison):
            about = (finding.metric, finding.subject, finding.before, figure, allowed)
            return AcceptedChange(*about, change=finding)
        return finding

    def _unknown(self, key: Key, figure: Figure) -> Finding:
        if key in self.old.figures and not self.accept:
            return NewFigure(figure.metric, figure.subject, figure, why=NOT_MEASURED_THEN)
        if self.require and not self.accept:
            return NoBaseline(figure.metric, figure.subject, figure, str(self.path))
        others = {
            other.environment
            for other in self.old.figures
            if replace(other, environment=key.environment) == key
            and other.environment.instrument == figure.instrument
        }
        if others and not self.accept:
            about = (figure.metric, figure.subject, figure)
            return OtherEnvironment(*about, tuple(sorted(others)), key.environment)
        return NewFigure(figure.metric, figure.subject, figure, why=self.why_new)


def by_key(test: str, compiler: str, figures: Iterable[Figure]) -> dict[Key, Figure]:
    """Return a test's figures by their keys; those of one metric and subject are numbered."""
    counts: Counter[tuple[str, str]] = Counter()
    figures_by_key = {}
    for figure in figures:
        counts[figure.metric, figure.subject] += 1
        number = counts[figure.metric, figure.subject]
        subject = figure.subject if number == 1 else f"{figure.subject} #{number}".strip()
        where = here(figure.instrument, compiler)
        figures_by_key[Key(where, test, subject, figure.metric)] = replace(figure, subject=subject)
    return figures_by_key


def compare_figures(baseline: Baseline, figures: Mapping[Key, Figure]) -> list[Finding]:
    """Return what became of each figure that a baseline keeps."""
    return [
        baseline.finding(key, figure)
        for key, figure in figures.items()
        if worth_keeping(figure) and steady(figure, baseline.allowed)
    ]

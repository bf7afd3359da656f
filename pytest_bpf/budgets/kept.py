"""A baseline in use: what it holds for a figure, and what is said where it holds nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from pytest_bpf.budgets import results
from pytest_bpf.budgets.allowed import Allowed, allowed_for
from pytest_bpf.budgets.allowed import parse as parse_allowed
from pytest_bpf.budgets.compare import (
    IN_NO_BASELINE,
    Accepted,
    Compared,
    New,
    Required,
    compare,
    steady,
    worth_keeping,
)
from pytest_bpf.budgets.environment import Environment, here
from pytest_bpf.budgets.results import Key, Results

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_bpf.budgets.findings import Finding
    from pytest_bpf.costs.figure import Figure


@dataclass(frozen=True)
class Elsewhere(New):
    """The baseline has this test's figures, of another kernel, compiler or machine."""

    environments: tuple[Environment, ...]
    now: Environment

    kind: ClassVar[str] = "elsewhere"

    @property
    def headline(self) -> str:
        """What it is of, and what is here."""
        of = " and of ".join(map(str, self.environments))
        return f"{self.what} is not compared: the baseline is of {of}, and this is {self.now}"


@dataclass(frozen=True)
class Baseline:
    """A baseline that figures are held against; ``old`` is empty where there is no file yet.

    ``why_new`` says why a figure is not in it.
    """

    path: Path
    old: Results
    allowed: Mapping[str, Allowed] = field(default_factory=dict)
    required: bool = False
    accepting: bool = False
    why_new: str = IN_NO_BASELINE

    @classmethod
    def open(
        cls,
        path: Path,
        allowed: Mapping[str, Allowed],
        *,
        required: bool = False,
        accepting: bool = False,
    ) -> Baseline:
        """Read it; ``allowed`` goes before what the file itself allows.

        Raises `ResultFileError` and `AllowedError`.
        """
        old = results.read(path) if path.exists() else Results()
        return cls(
            path,
            old,
            {**parse_allowed(old.allowed), **allowed},
            required=required,
            accepting=accepting,
        )

    def finding(self, key: Key, figure: Figure) -> Finding:
        """Return what became of a figure."""
        allowed = allowed_for(figure.metric, figure.instrument, self.allowed)
        before = self.old.figures.get(key)
        found = compare(before, figure, allowed)
        if isinstance(found, New):
            return self._unknown(key, figure)
        accepted = self.accepting and found.verdict != "pass"
        if accepted and isinstance(found, Compared):
            return Accepted(found.metric, found.subject, found.before, figure, allowed)
        return found

    def _unknown(self, key: Key, figure: Figure) -> Finding:
        if self.required and not self.accepting:
            return Required(figure.metric, figure.subject, figure, str(self.path))
        others = {
            other.environment
            for other in self.old.figures
            if replace(other, environment=key.environment) == key
            and other.environment.instrument == figure.instrument
        }
        if others and not self.accepting:
            found = tuple(sorted(others))
            return Elsewhere(figure.metric, figure.subject, figure, found, key.environment)
        return New(figure.metric, figure.subject, figure, why=self.why_new)


def keyed(test: str, compiler: str, figures: Iterable[Figure]) -> dict[Key, Figure]:
    """Return a test's figures by their keys; those of one metric and subject are numbered."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for figure in figures:
        seen[figure.metric, figure.subject] += 1
        number = seen[figure.metric, figure.subject]
        subject = figure.subject if number == 1 else f"{figure.subject} #{number}".strip()
        where = here(figure.instrument, compiler)
        found[Key(where, test, subject, figure.metric)] = replace(figure, subject=subject)
    return found


def compared(baseline: Baseline, figures: Mapping[Key, Figure]) -> list[Finding]:
    """Return what became of each figure that a baseline keeps."""
    return [
        baseline.finding(key, figure)
        for key, figure in figures.items()
        if worth_keeping(figure) and steady(figure, baseline.allowed)
    ]

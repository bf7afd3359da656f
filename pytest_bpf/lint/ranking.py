"""Findings by what their lines did in a run: the dearest first, and none of dead lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_bpf.lint.findings import LintFinding

Line = tuple[str, int]


@dataclass(frozen=True)
class MeasuredLines:
    """What a run knows of lines: an ``amount`` of each, in some ``unit``, and those that are dead.

    The unit is a word for runs, or for what the line cost.
    """

    unit: str = "runs"
    amounts: Mapping[Line, int] = field(default_factory=dict)
    dead: frozenset[Line] = frozenset()


@dataclass(frozen=True)
class RankedFinding:
    """A finding, and the amount of its line; None where nothing was measured."""

    finding: LintFinding
    amount: int | None
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.finding}" + (
            "" if self.amount is None else f" ({self.amount:,} {self.unit})"
        )


def ranked(findings: Iterable[LintFinding], measured: MeasuredLines) -> list[RankedFinding]:
    """Return the findings with the greatest amounts first, without those of dead lines.

    Those of lines of which nothing is known come last, by file and line.
    """
    rows = [
        RankedFinding(finding, measured.amounts.get((finding.file, finding.line)), measured.unit)
        for finding in sorted(findings)
        if (finding.file, finding.line) not in measured.dead
    ]
    return sorted(rows, key=lambda row: -1 if row.amount is None else row.amount, reverse=True)

"""What is found of a test fails it: at the end of its call, or at the line that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.budgets import limits
from pytest_bpf.budgets.judge import judge
from pytest_bpf.costs.figures.measurements import figures_of
from pytest_bpf.errors import BudgetError, BudgetWarning
from pytest_bpf.plugin.budgets.trial import TRIAL
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import MEASUREMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.budgets.findings import Finding


class Budget:
    """What the fixture ``bpf_budget`` gives."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(self, *measured: Any, **options: Any) -> list[Finding]:
        """Hold what was measured against limits, here and now, and keep its figures.

        ``measured`` are figures, or what has ``figures``: costs, runs, latencies; ``options`` are
        limits as in the marker, with ``program`` or ``map``. Without limits the figures are only
        kept, for the marker and the baseline. Raises `BudgetError` for what is broken.
        """
        figures = list(figures_of(measured))
        self._item.stash.setdefault(MEASUREMENTS, []).extend(figures)
        if not options:
            return []
        findings = judge(limits.parse([], options, "test"), figures)
        broken = _broken(self._item, findings)
        if broken:
            raise BudgetError(_text(self._item, broken), broken)
        self._item.stash[TRIAL].findings += findings
        return findings


def decide(item: pytest.Item, findings: Sequence[Finding]) -> None:
    """Warn of missed targets, and fail the test for what is broken."""
    broken = _broken(item, findings)
    if broken:
        pytest.fail(_text(item, broken), pytrace=False)
    try:
        for finding in findings:
            if finding.verdict == "warning":
                item.warn(BudgetWarning(finding.headline))
    except BudgetWarning as error:
        pytest.fail(str(error), pytrace=False)


def _broken(item: pytest.Item, findings: Sequence[Finding]) -> list[Finding]:
    failing = {"fail"}
    if settings(item.config).strict:
        failing |= {"inconclusive", "not measured"}
    return [finding for finding in findings if finding.verdict in failing]


def _text(item: pytest.Item, broken: Sequence[Finding]) -> str:
    verbosity = item.config.get_verbosity()
    lines = []
    for finding in broken:
        strict = "" if finding.verdict == "fail" else "--bpf-strict: "
        lines.append(f"{strict}{finding.headline}")
        lines += [f"    {line}" for line in finding.details(verbosity)]
    return "\n".join(lines)

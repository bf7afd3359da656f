"""The custom JSON of github-action-benchmark: its tools customSmallerIsBetter and ...Bigger...."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pytest_bpf.budgets.findings import interval
from pytest_bpf.budgets.quantity import shown
from pytest_bpf.costs.figure import METRICS
from pytest_bpf.reports.named import named

if TYPE_CHECKING:
    from pytest_bpf.budgets.results import Results

UNITS = {"count": "", "share": "%"}
"""Units by their names there, where those are not ours."""


def benchmark(found: Results, *, better: Literal["lower", "higher"]) -> list[dict[str, Any]]:
    """Return the list of entries of those metrics of which ``better`` is better."""
    entries = []
    for name, key, figure in named(found):
        metric = METRICS[key.metric]
        if metric.better != better or figure.value is None:
            continue
        factor = 100 if metric.unit == "share" else 1
        lower, upper = interval(figure)
        entry = {
            "name": f"{name}: {metric.name}",
            "unit": UNITS.get(metric.unit, metric.unit),
            "value": figure.value * factor,
            "extra": f"{metric.meaning}\n{key.environment}, instrument {figure.instrument}",
        }
        if lower != upper:
            entry["range"] = f"{shown(lower, metric.unit)} to {shown(upper, metric.unit)}"
        entries.append(entry)
    return entries

"""The Bencher Metric Format: benchmarks by name, in each its measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.budgets.findings import interval
from pytest_bpf.reports.named import named

if TYPE_CHECKING:
    from pytest_bpf.budgets.results import Results


def bencher(found: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures; a measure's slug is the metric with hyphens, its unit is the metric's."""
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for name, key, figure in named(found):
        if figure.value is None:
            continue
        measure = {"value": figure.value}
        lower, upper = interval(figure)
        if lower != upper:
            measure |= {"lower_value": lower, "upper_value": upper}
        benchmarks.setdefault(name, {})[key.metric.replace("_", "-")] = measure
    return benchmarks

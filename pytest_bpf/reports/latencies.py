"""The percentiles of latencies, one row for each map and test, on one scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.budgets.quantity import format_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.budgets.results import Key, Results

PERCENTILES = ("latency_p50", "latency_p95", "latency_p99", "latency_max")
"""The metrics, from the least to the greatest."""


@dataclass(frozen=True)
class LatencyRow:
    """The percentiles of one map in one test: as text, and as places from 0 to 100."""

    subject: str
    test: str
    where: str
    values: tuple[str, ...]
    places: tuple[float, ...]


def latency_rows(results: Results) -> list[LatencyRow]:
    """Return them; the places are on a logarithmic scale, the same for all rows."""
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for key, figure in sorted(results.figures.items()):
        if key.metric in PERCENTILES and figure.value is not None:
            rows.setdefault((key.subject, key.test, _where(key)), {})[key.metric] = figure.value
    every = [value for values in rows.values() for value in values.values() if value > 0]
    return [
        LatencyRow(
            *about,
            tuple(format_value(values[n], "ns") if n in values else "" for n in PERCENTILES),
            tuple(_place(values[n], every) for n in PERCENTILES if n in values),
        )
        for about, values in rows.items()
    ]


def _place(value: float, every: Sequence[float]) -> float:
    least, most = min(every, default=1.0), max(every, default=1.0)
    if value <= least or most <= least:
        return 2.0
    return round(2 + 96 * math.log(value / least) / math.log(most / least), 1)


def _where(key: Key) -> str:
    return f"{key.environment}, {key.environment.instrument}"

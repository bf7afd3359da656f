"""The formats of ``--bpf-report``, each a function that writes one file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_bpf.budgets import results
from pytest_bpf.budgets.claims import Claim
from pytest_bpf.budgets.findings import bounds_of
from pytest_bpf.budgets.quantity import format_value
from pytest_bpf.costs.figures.figure import METRICS
from pytest_bpf.reports.annotations import github, gitlab
from pytest_bpf.reports.claim_table import claim_lines, claims_markdown
from pytest_bpf.reports.markdown import markdown
from pytest_bpf.reports.veristat import veristat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_bpf.budgets.results import Key, Results
    from pytest_bpf.costs.figures.figure import Figure


def bencher(session_results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures; a measure's slug is the metric with hyphens, its unit is the metric's."""
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for name, key, figure in with_names(session_results):
        if figure.value is None:
            continue
        measure = {"value": figure.value}
        lower, upper = bounds_of(figure)
        if lower != upper:
            measure |= {"lower_value": lower, "upper_value": upper}
        benchmarks.setdefault(name, {})[key.metric.replace("_", "-")] = measure
    return benchmarks


UNITS = {"count": "", "share": "%"}
"""Units by their names there, where those are not ours."""


def benchmark(
    session_results: Results, *, better: Literal["lower", "higher"]
) -> list[dict[str, Any]]:
    """Return the list of entries of those metrics of which ``better`` is better."""
    entries = []
    for name, key, figure in with_names(session_results):
        metric = METRICS[key.metric]
        if metric.better != better or figure.value is None:
            continue
        factor = 100 if metric.unit == "share" else 1
        lower, upper = bounds_of(figure)
        entry = {
            "name": f"{name}: {metric.name}",
            "unit": UNITS.get(metric.unit, metric.unit),
            "value": figure.value * factor,
            "extra": f"{metric.meaning}\n{key.environment}, instrument {figure.instrument}",
        }
        if lower != upper:
            entry["range"] = (
                f"{format_value(lower, metric.unit)} to {format_value(upper, metric.unit)}"
            )
        entries.append(entry)
    return entries


def with_names(session_results: Results) -> Iterator[tuple[str, Key, Figure]]:
    """Yield test and subject as one name, with the kernel where there are several, and the figure.

    Only what was measured; the order is that of the keys.
    """
    several = len({key.environment.kernel for key in session_results.figures}) > 1
    for key, figure in sorted(session_results.figures.items()):
        if figure.value is not None:
            parts = [key.test, key.subject, f"kernel {key.environment.kernel}" if several else ""]
            yield ", ".join(part for part in parts if part), key, figure


def _write_json(path: Path, content: Any) -> None:
    results.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_markdown(session_results: Results, path: Path) -> None:
    """Write Markdown; a GitHub step's summary is added to, as the other steps' parts are in it."""
    text = "\n".join([*markdown(session_results), ""])
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and Path(summary) == path and path.exists():
        text = path.read_text(encoding="utf-8") + text
    results.write_text(path, text)


def _write_claims(session_results: Results, path: Path) -> None:
    lines = claim_lines(map(Claim.from_dict, session_results.claims))
    results.write_text(path, "\n".join([*claims_markdown(lines), ""]))


def write_html(
    session_results: Results,
    path: Path,
    *,
    history: Sequence[Results] = (),
    title: str = "pytest-bpf",
) -> None:
    """Write the HTML report; ``history`` are earlier results, the oldest first."""
    from pytest_bpf.reports.html import html  # noqa: PLC0415 (jinja2, when asked for)

    text = html(session_results, history=history, title=title, folder=path.parent)
    results.write_text(path, text)


FORMATS: Mapping[str, Callable[[Results, Path], None]] = {
    "json": lambda session_results, path: results.write(path, session_results),
    "markdown": _write_markdown,
    "claims": _write_claims,
    "benchmark": lambda session_results, path: _write_json(
        path, benchmark(session_results, better="lower")
    ),
    "benchmark-bigger": lambda session_results, path: _write_json(
        path, benchmark(session_results, better="higher")
    ),
    "html": write_html,
    "github": lambda session_results, path: results.write_text(
        path, "".join(f"{line}\n" for line in github(session_results))
    ),
    "gitlab": lambda session_results, path: _write_json(path, gitlab(session_results)),
    "bencher": lambda session_results, path: _write_json(path, bencher(session_results)),
    "veristat": lambda session_results, path: results.write_text(path, veristat(session_results)),
}

"""The terminal's section on budgets and baselines: one line for each program of a test."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pytest_bpf.budgets.compare import IN_NO_BASELINE
from pytest_bpf.budgets.quantity import format_value
from pytest_bpf.costs.figures.figure import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORDER = ("fail", "warning", "inconclusive", "not measured", "pass")
"""Verdicts, the worst first."""

COUNT_TEXTS = {
    "within": "{} kept",
    "same": "{} as before",
    "better": "{} better than before",
    "new": "{} new",
    "elsewhere": "{} not compared",
    "accepted": "{} accepted",
}


def budget_lines(findings: Sequence[Mapping[str, Any]], verbosity: int = 0) -> list[str]:
    """Return a line for each program that something is to be said of, then the counts.

    With ``-v`` there is one for those too of which all is well.
    """
    grouped: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        key = (finding["test"], finding["kernel"], finding["subject"])
        grouped.setdefault(key, []).append(finding)
    kernels = len({kernel for _, kernel, _ in grouped})
    rows = []
    for (test, kernel, subject), group in grouped.items():
        worst = min((f["verdict"] for f in group), key=ORDER.index)
        lines_shown = [f for f in group if verbosity > 0 or f["verdict"] != "pass" or _is_news(f)]
        if lines_shown:
            where = f"{test} on {kernel}" if kernels > 1 else test
            label = lines_shown[0]["kind"] if worst == "pass" and verbosity <= 0 else worst
            rows.append((worst, label, where, subject or "-", _summarize(lines_shown)))
    rows.sort(key=lambda row: ORDER.index(row[0]))
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(1, 4)]
    lines = ["  ".join((*map(str.ljust, row[1:4], widths), row[4])) for row in rows]
    return [*lines, *_kernel_table(findings, verbosity), *_reasons(findings), *_counts(findings)]


def _kernel_table(findings: Sequence[Mapping[str, Any]], verbosity: int) -> list[str]:
    """Return a table: the figures that something is to be said of, against the kernels.

    There is none for one kernel. A cell has the figure, what it was in the baseline, and the
    verdict where it is not "pass"; of several findings it is the worst.
    """
    kernels = list(dict.fromkeys(finding["kernel"] for finding in findings))
    rows: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    shown = set()
    for finding in sorted(findings, key=lambda finding: -ORDER.index(finding["verdict"])):
        key = (finding["test"], finding["subject"] or "-", finding["metric"])
        rows.setdefault(key, {})[finding["kernel"]] = finding
        if verbosity > 0 or finding["verdict"] != "pass" or _is_news(finding):
            shown.add(key)
    if len(kernels) < 2 or not shown:
        return []
    cells = {key: [_cell(rows[key].get(kernel)) for kernel in kernels] for key in sorted(shown)}
    table = [("", "", "", *kernels), *((*key, *row) for key, row in cells.items())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def _cell(finding: Mapping[str, Any] | None) -> str:
    if finding is None:
        return "-"
    unit = METRICS[finding["metric"]].unit
    value, before, verdict = finding.get("value"), finding.get("before"), finding["verdict"]
    parts = [] if value is None else [format_value(value, unit)]
    if value is not None and before is not None and before != value:
        parts.append(f"(was {format_value(before, unit)})")
    if verdict != "pass" or not parts:
        parts.append(verdict if verdict != "pass" else finding["kind"])
    return " ".join(parts)


def _summarize(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return the metrics with what is said of them, once of those of which it is the same."""
    by_summary: dict[str, list[str]] = {}
    for finding in findings:
        by_summary.setdefault(finding["summary"], []).append(finding["metric"])
    return "; ".join(f"{', '.join(metrics)} {text}" for text, metrics in by_summary.items())


def _is_news(finding: Mapping[str, Any]) -> bool:
    return finding["kind"] in ("accepted", "better")


def _reasons(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return once what is said of every figure that cannot be compared: why not.

    Of figures that are in no baseline yet there is nothing to say.
    """
    reasons = set()
    for finding in findings:
        headline = finding["headline"]
        if finding["kind"] == "elsewhere":
            reasons.add(f"not compared: {headline.partition(' is not compared: ')[2]}")
        elif finding["kind"] == "new" and not headline.endswith(IN_NO_BASELINE):
            reasons.add(f"{finding['test']}: new: {headline.partition(' is new: ')[2]}")
    return sorted(reasons)


def _counts(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = Counter(finding["kind"] for finding in findings)
    parts = [text.format(counts[kind]) for kind, text in COUNT_TEXTS.items() if counts[kind]]
    return [f"figures: {', '.join(parts)}"] if parts else []

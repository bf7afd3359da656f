"""Markdown for a GitHub step's summary and for a comment on a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.budgets.claims import Claim
from pytest_bpf.budgets.quantity import format_change, format_value
from pytest_bpf.costs.figures.figure import METRICS
from pytest_bpf.reports.claim_table import TITLE, claim_lines, claims_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_bpf.budgets.results import Results

MARK = "<!-- pytest-bpf -->"
"""The first line: by it a workflow finds its earlier comment, to replace it."""

SIGNS = {"fail": "❌", "warning": "⚠️", "inconclusive": "❔", "not measured": "❔", "pass": "✅"}

CHANGES = (
    "| | program | metric | before | after | change | test |",
    "|---|---|---|--:|--:|--:|---|",
)
LIMITS = ("| | program | metric | figure | limit | test |", "|---|---|---|--:|--:|---|")
FIGURES = ("| program | metric | figure | test |", "|---|---|--:|---|")


def markdown(session_results: Results) -> list[str]:
    """Return the lines: the verdict, what is to be looked at, and the rest folded away."""
    findings = session_results.findings
    against = [f for f in findings if "before" in f or f["kind"] in ("new", "gone", "required")]
    limits = [f for f in findings if "limit" in f or "target" in f]
    lines = [MARK, f"### eBPF costs: {_verdict(findings)}", ""]
    for title, headings, group, row in (
        ("Changes", CHANGES, against, _change),
        ("Limits", LIMITS, limits, _limit),
    ):
        loud = [f for f in group if f["verdict"] != "pass" or f["kind"] in ("accepted", "better")]
        quiet = [f for f in group if f not in loud]
        lines += _table(headings, map(row, loud))
        lines += _folded(f"{title}: {len(quiet)} without complaint", headings, map(row, quiet))
    if session_results.claims:
        claims = claim_lines(map(Claim.from_dict, session_results.claims))
        lines += [*claims_markdown(claims, f"### {TITLE}"), ""]
    if not findings and not session_results.claims:
        rows = [
            (_code(key.subject), key.metric, _format(key.metric, figure.value), _code(key.test))
            for key, figure in sorted(session_results.figures.items())
        ]
        lines += _table(FIGURES, rows)
    return lines


def _verdict(findings: Sequence[Mapping[str, Any]]) -> str:
    failed = sum(f["verdict"] == "fail" for f in findings)
    open_ = sum(f["verdict"] in ("inconclusive", "not measured") for f in findings)
    if failed:
        return f"{SIGNS['fail']} {failed} of {len(findings)} figures failed"
    suffix = f", {open_} not decided" if open_ else ""
    return (
        f"{SIGNS['pass']} {len(findings) - open_} figures held{suffix}" if findings else "measured"
    )


def _change(finding: Mapping[str, Any]) -> tuple[str, ...]:
    metric, before, after = finding["metric"], finding.get("before"), finding.get("value")
    by = (
        ""
        if before is None or after is None
        else format_change(before, after, METRICS[metric].unit)
    )
    return (
        SIGNS[finding["verdict"]],
        _code(finding["subject"]),
        metric,
        "new" if before is None else _format(metric, before),
        "gone" if after is None else _format(metric, after),
        "none" if before == after else by,
        _code(finding["test"]),
    )


def _limit(finding: Mapping[str, Any]) -> tuple[str, ...]:
    metric = finding["metric"]
    bound = finding.get("limit", finding.get("target"))
    return (
        SIGNS[finding["verdict"]],
        _code(finding["subject"]),
        metric,
        _format(metric, finding.get("value")) if "value" in finding else finding["summary"],
        _format(metric, bound),
        _code(finding["test"]),
    )


def _format(metric: str, value: float | None) -> str:
    return "-" if value is None else format_value(value, METRICS[metric].unit)


def _code(text: str) -> str:
    return f"`{text.replace('|', '¦').replace('`', chr(39))}`" if text else ""


def _table(headings: tuple[str, str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [*headings, *lines, ""] if lines else []


def _folded(title: str, headings: tuple[str, str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = _table(headings, rows)
    if not table:
        return []
    return ["<details>", f"<summary>{title}</summary>", "", *table, "</details>", ""]

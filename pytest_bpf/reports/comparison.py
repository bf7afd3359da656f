"""``pytest-bpf compare BEFORE AFTER``: two result files, a table, a verdict as exit status."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.budgets import results
from pytest_bpf.budgets.compare import compare_all
from pytest_bpf.budgets.findings import as_dict
from pytest_bpf.budgets.quantity import format_change, format_value
from pytest_bpf.budgets.results import Results
from pytest_bpf.budgets.tolerance import parse, parse_lines
from pytest_bpf.costs.figures.figure import METRICS
from pytest_bpf.errors import BpfError
from pytest_bpf.reports.formats import FORMATS
from pytest_bpf.reports.veristat import read_veristat, veristat_comparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_bpf.budgets.findings import Finding
    from pytest_bpf.budgets.results import Key

HEADINGS = ("verdict", "test", "subject", "metric", "before", "after", "change")

STATUS = """\
exit status: 0 nothing got worse by more than is allowed, 1 something did, 2 a file cannot be read;
with --strict 1 also for what is inconclusive, new or gone. Files are results or baselines of
pytest-bpf (JSON) or CSV of veristat."""


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        prog="pytest-bpf compare",
        description="Compare what two runs measured.",
        epilog=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("before", type=Path)
    result.add_argument("after", type=Path)
    result.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="METRIC:CHANGE",
        help="'run_time: 10%%', 'verified_insns: 20'; goes before what the first file allows",
    )
    result.add_argument("--all", action="store_true", help="show what did not change too")
    result.add_argument("--strict", action="store_true", help="fail for what is not decided too")
    result.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    result.add_argument("--csv", type=Path, metavar="FILE", help="write what veristat -C writes")
    return result


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        before, after = read(options.before), read(options.after)
        allowed = {**parse(before.allowed), **parse_lines(options.allow)}
        findings = compare_all(before.figures, after.figures, allowed)
        if options.markdown:
            plain = tuple({"test": key.test, **as_dict(f)} for key, f in findings.items())
            FORMATS["markdown"](Results(findings=plain), options.markdown)
        if options.csv:
            results.write_text(options.csv, veristat_comparison(before, after))
    except BpfError as error:
        print(f"pytest-bpf compare: {error}", file=sys.stderr)  # noqa: T201 (a command)
        return 2
    print("\n".join(comparison_table(findings, everything=options.all)))  # noqa: T201
    verdicts = {finding.verdict for finding in findings.values()}
    undecided = bool(verdicts & {"inconclusive", "not measured"}) or any(
        finding.kind == "new" for finding in findings.values()
    )
    return int("fail" in verdicts or (options.strict and undecided))


def read(path: Path) -> Results:
    """Read a result file of either kind; raises `ResultFileError`."""
    if path.suffix.lower() != ".csv":
        return results.read(path)
    try:
        return read_veristat(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise results.ResultFileError(f"{path} cannot be read: {error.strerror}") from None


def comparison_table(findings: Mapping[Key, Finding], *, everything: bool = False) -> list[str]:
    """Return the table, one line a figure that changed, and the counts."""
    visible = {k: f for k, f in findings.items() if everything or f.kind != "same" or _changed(f)}
    rows = [HEADINGS, *(_row(key, finding) for key, finding in visible.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    counts = Counter(finding.kind for finding in findings.values())
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return [*(lines if visible else []), summary or "there is nothing to compare"]


def _changed(finding: Finding) -> bool:
    return "->" in finding.summary


def _row(key: Key, finding: Finding) -> tuple[str, ...]:
    fields, unit = as_dict(finding), METRICS[key.metric].unit
    before, after = fields.get("before"), fields.get("value")
    return (
        finding.kind,
        key.test,
        key.subject,
        key.metric,
        "-" if before is None else format_value(before, unit),
        "-" if after is None else format_value(after, unit),
        "" if before is None or after is None else format_change(before, after, unit),
    )

"""``pytest-bpf report``: JSON reports of several machines as one, in another format."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.budgets import annotated, results
from pytest_bpf.budgets.results import Results
from pytest_bpf.errors import BpfError
from pytest_bpf.reports.formats import FORMATS, write_html

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pytest_bpf.budgets.outcomes import Outcome

EXAMPLES = """\
pytest-bpf report results.json                                 report.html
pytest-bpf report arm.json x86.json -o all.html --history old/*.json
pytest-bpf report arm.json x86.json -o json:all.json -o markdown:all.md

exit status: 0 written, 2 a file cannot be read or written.
"""


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        prog="pytest-bpf report",
        description="Merge JSON reports (--bpf-report=json:FILE), and write others of them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    result.add_argument(
        "-o",
        "--output",
        action="append",
        metavar="[FORMAT:]FILE",
        help=f"{', '.join(FORMATS)}; html where none is named. (default: report.html)",
    )
    result.add_argument(
        "--history", nargs="+", type=Path, default=[], metavar="RESULTS.json",
        help="earlier results or baselines, the oldest first: what figures were",
    )  # fmt: skip
    result.add_argument("--title", default="pytest-bpf", help="of the HTML report")
    return result


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        merged = merge([results.read(path) for path in options.results])
        history = [results.read(path) for path in options.history]
        for output in options.output or ["report.html"]:
            kind, path = _split(output)
            if kind == "html":
                write_html(merged, path, history=history, title=options.title)
            else:
                FORMATS[kind](merged, path)
    except BpfError as error:
        print(f"pytest-bpf report: {error}", file=sys.stderr)  # noqa: T201 (a command)
        return 2
    return 0


def merge(several: Sequence[Results]) -> Results:
    """Return results as one: of what is in several the last, findings and claims of all.

    What lines of C did is added up.
    """
    merged = Results()
    tests: dict[tuple[str, str], Outcome] = {}
    findings: list[Mapping[str, Any]] = []
    claims: list[Mapping[str, Any]] = []
    for one in several:
        merged = merged.merged(one.figures)
        tests |= {(outcome.test, outcome.kernel): outcome for outcome in one.tests}
        findings += [finding for finding in one.findings if finding not in findings]
        claims += [claim for claim in one.claims if claim not in claims]
    allowed = {name: change for one in several for name, change in one.allowed.items()}
    return replace(
        merged,
        allowed=allowed,
        findings=tuple(findings),
        claims=tuple(claims),
        tests=tuple(tests.values()),
        annotated=annotated.merge(file for one in several for file in one.annotated),
    )


def _split(output: str) -> tuple[str, Path]:
    """Return format and file: ``"json:all.json"``, or a file whose name ends in ``.html``."""
    kind, colon, path = output.partition(":")
    if colon and kind in FORMATS:
        return kind, Path(path)
    return "html", Path(output)

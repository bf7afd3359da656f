"""``--bpf-lint``: what the rules find in the objects of a session, the dearest lines first."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_bpf.plugin.stash import LINES, LINT, LINT_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from pytest_bpf.compile import CompiledObject


def find(node: pytest.Item | pytest.Collector, compilation: CompiledObject) -> None:
    """Keep what the rules find in an object that was compiled for a test, or a module."""
    from pytest_bpf.lint import lint
    from pytest_bpf.objects.loading.open_object import open_file

    findings = lint(open_file(compilation.object, trusted=True), str(compilation.source))
    node.stash.setdefault(LINT, set()).update(findings)


def hand_over(node: Any, report: pytest.TestReport) -> None:
    """Put what was found into a test's report, which a worker sends to the controller."""
    if LINT in node.stash:
        findings = [asdict(finding) for finding in sorted(node.stash[LINT])]
        report.user_properties.append((LINT_PROPERTY, findings))
        del node.stash[LINT]


def show(
    terminalreporter: pytest.TerminalReporter,
    config: pytest.Config,
    of_tests: Iterable[Iterable[dict[str, Any]]],
) -> None:
    """List the findings: with lines that were counted those first that ran or cost most."""
    from pytest_bpf.lint.findings import LintFinding
    from pytest_bpf.lint.ranking import MeasuredLines, ranked

    lines = config.stash.get(LINES, None)
    measured = lines.measured() if lines is not None else MeasuredLines()
    findings = {LintFinding(**finding) for some in of_tests for finding in some}
    rows = ranked(findings, measured)
    terminalreporter.section("bpf: what the lint rules find")
    terminalreporter.write_line("\n".join(map(str, rows)) or "nothing")
    if left := len(findings) - len(rows):
        terminalreporter.write_line(
            f"{left} more in lines that the verifier removed from every load"
        )

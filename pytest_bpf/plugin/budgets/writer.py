"""Baselines and reports on pytest's side: written by the one process that hears of every test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.budgets import results
from pytest_bpf.budgets.compare import worth_keeping
from pytest_bpf.budgets.results import ResultFileError, Results
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.sys.release import release
from pytest_bpf.plugin.items import counts
from pytest_bpf.plugin.matrix.names import strip_kernel
from pytest_bpf.plugin.options import STDOUT
from pytest_bpf.plugin.outcomes import Outcomes
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import CLAIM_PROPERTY, LINES, NOTES
from pytest_bpf.reports.annotations import github
from pytest_bpf.reports.budget_section import budget_lines
from pytest_bpf.reports.formats import FORMATS, write_html

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_bpf.budgets.annotated import AnnotatedFile
    from pytest_bpf.budgets.results import Key
    from pytest_bpf.costs.figures.figure import Figure

NAME = "bpf-reporting"


COLOURS = {"fail": "red", "ERROR": "red", "warning": "yellow", "accepted": "yellow"} | {
    "inconclusive": "yellow",
    "better": "green",
}
"""The colour of a line that begins with this word."""


def register(config: pytest.Config) -> None:
    """Write this session's baseline and reports; raises `pytest.UsageError` when that cannot be."""
    chosen = settings(config)
    baseline, reports = chosen.baselines.save, list(chosen.reports)
    if chosen.claims:
        reports.append(("claims", chosen.claims))
    if not baseline and not reports:
        return
    try:
        for path in [
            *([baseline] if baseline else []),
            *(path for _, path in reports if path != STDOUT),
        ]:
            results.check_writable(path)
        if baseline and baseline.exists():
            results.read(baseline)
        if any(kind == "html" for kind, _ in reports):
            from pytest_bpf.reports.html import check_extra

            check_extra()
        writer = Writer(config, baseline, reports)
    except (ResultFileError, UnavailableError) as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(writer, NAME)


def _history(config: pytest.Config) -> list[Results]:
    """Return what the figures were: the baseline that this session compares with."""
    path = settings(config).baselines.compare
    return [results.read(path)] if path is not None and path.exists() else []


class Writer:
    """Gathers what all tests of a session, of all its workers and kernels, have measured."""

    def __init__(
        self, config: pytest.Config, baseline: Path | None, reports: Sequence[tuple[str, Path]]
    ) -> None:
        self._config = config
        self._baseline = baseline
        self._reports = reports
        self._results: list[dict[str, Any]] = []
        self._claims: list[dict[str, Any]] = []
        self._history = _history(config) if any(kind == "html" for kind, _ in reports) else []
        self._outcomes = Outcomes(release())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test measured, and what it made of its claim, in its last try."""
        if not counts(report):
            return
        self._outcomes.add(report)
        if hasattr(report, "bpf_results"):
            self._results.append(report.bpf_results)
        properties: dict[str, Any] = dict(report.user_properties)
        if CLAIM_PROPERTY in properties:
            test = strip_kernel(report.nodeid, str(properties.get("bpf_kernel", "")))
            self._claims.append({"test": test, **properties[CLAIM_PROPERTY]})

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write everything; what cannot be written fails the session."""
        if session.config.option.collectonly:
            return
        notes = self._config.stash.setdefault(NOTES, [])
        try:
            if self._baseline:
                notes.append(self._write_baseline(self._baseline))
            merged = replace(
                merge_results(self._results),
                claims=tuple(self._claims),
                tests=self._outcomes.values(),
                annotated=self._annotated(),
            )
            for kind, path in self._reports:
                if kind == "github" and path == STDOUT:
                    notes += github(merged)
                    continue
                if kind == "html":
                    write_html(merged, path, history=self._history)
                else:
                    FORMATS[kind](merged, path)
                notes.append(f"{kind} report: {path}")
        except ResultFileError as error:
            notes.append(f"ERROR: {error}")
            if session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _annotated(self) -> tuple[AnnotatedFile, ...]:
        """Return the sources of which lines were counted in this session."""
        counted = self._config.stash.get(LINES, None)
        if counted is None:
            return ()
        from pytest_bpf.plugin.coverage.annotating import Annotations
        from pytest_bpf.reports.annotated import annotate

        costs = counted.costs() if isinstance(counted, Annotations) else ()
        return annotate([] if isinstance(counted, Annotations) else counted.files, costs)

    def _write_baseline(self, path: Path) -> str:
        old = results.read(path) if path.exists() else Results()
        figures_to_save: dict[Key, Figure] = {}
        for result in self._results:
            if result["goes_into_baseline"]:
                figures = results.parse(result["figures"]).figures
                figures_to_save |= {
                    key: figure for key, figure in figures.items() if worth_keeping(figure)
                }
        if not figures_to_save:
            return f"nothing was measured that a baseline keeps: {path} is as it was"
        results.write(path, old.merged(figures_to_save))
        return f"baseline saved: {path}, {len(figures_to_save)} figures"


def merge_results(several: Sequence[Mapping[str, Any]]) -> Results:
    """Return what was measured and found by all tests together."""
    figures: dict[Key, Figure] = {}
    findings: list[Mapping[str, Any]] = []
    sources: dict[tuple[str, str], str] = {}
    for result in several:
        figures |= results.parse(result["figures"]).figures
        findings += result["findings"]
        sources |= {(result["test"], subject): s for subject, s in result["sources"].items()}
    return Results(figures, findings=tuple(findings), sources=sources)


def _no_baseline(config: pytest.Config) -> list[str]:
    """Return a line that says that there is no baseline yet, and which there are."""
    path = settings(config).baselines.compare
    if path is None or path.exists():
        return []
    names = sorted(other.stem for other in path.parent.glob("*.json"))
    others = f"; there are: {', '.join(names)}" if names else ""
    return [f"no baseline yet: {path}; save it by --bpf-save-baseline{others}"]


def show(
    terminalreporter: pytest.TerminalReporter,
    config: pytest.Config,
    several: Sequence[Mapping[str, Any]],
) -> None:
    """Show what was found, when something was, and what was written."""
    findings = [finding for result in several for finding in result["findings"]]
    lines = budget_lines(findings, config.get_verbosity())
    notes: list[str] = config.stash.get(NOTES, [])
    lines = [*lines, *_no_baseline(config), *notes]
    if lines:
        terminalreporter.write_sep("=", "bpf: budgets and baselines")
        for line in lines:
            word = line.partition(" ")[0].rstrip(":")
            terminalreporter.write_line(line, **{COLOURS[word]: True} if word in COLOURS else {})

"""Baselines and reports on pytest's side: written by the one process that hears of every test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import options
from pytest_bpf.budgets import results
from pytest_bpf.budgets.compare import worth_keeping
from pytest_bpf.budgets.results import ResultFileError, Results
from pytest_bpf.matrix.names import without
from pytest_bpf.reports.budgets import budget_lines
from pytest_bpf.reports.formats import FORMATS
from pytest_bpf.stash import CLAIM_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_bpf.budgets.results import Key
    from pytest_bpf.costs.figure import Figure

NAME = "bpf-reporting"

NOTES = pytest.StashKey[list[str]]()
"""What was written, for the end of the session."""


def register(config: pytest.Config) -> None:
    """Write this session's baseline and reports; raises `pytest.UsageError` when that cannot be."""
    baseline, reports = options.baselines(config).written, options.reports(config)
    if not baseline and not reports:
        return
    try:
        for path in [*([baseline] if baseline else []), *(path for _, path in reports)]:
            results.check_writable(path)
        if baseline and baseline.exists():
            results.read(baseline)
    except ResultFileError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(Writer(config, baseline, reports), NAME)


class Writer:
    """Gathers what all tests of a session, of all its workers and kernels, have measured."""

    def __init__(
        self, config: pytest.Config, baseline: Path | None, reports: Sequence[tuple[str, Path]]
    ) -> None:
        self._config = config
        self._baseline = baseline
        self._reports = reports
        self._gathered: list[dict[str, Any]] = []
        self._claims: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test measured, and what it made of its claim."""
        if hasattr(report, "bpf_results"):
            self._gathered.append(report.bpf_results)
        given: dict[str, Any] = dict(report.user_properties)
        if CLAIM_PROPERTY in given:
            test = without(report.nodeid, str(given.get("bpf_kernel", "")))
            self._claims.append({"test": test, **given[CLAIM_PROPERTY]})

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write everything; what cannot be written fails the session."""
        if session.config.option.collectonly:
            return
        notes = self._config.stash.setdefault(NOTES, [])
        try:
            if self._baseline:
                notes.append(self._write_baseline(self._baseline))
            together = replace(gathered(self._gathered), claims=tuple(self._claims))
            for kind, path in self._reports:
                FORMATS[kind](together, path)
                notes.append(f"{kind} report: {path}")
        except ResultFileError as error:
            notes.append(f"ERROR: {error}")
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _write_baseline(self, path: Path) -> str:
        old = results.read(path) if path.exists() else Results()
        kept: dict[Key, Figure] = {}
        for result in self._gathered:
            if result["kept"]:
                figures = results.parse(result["figures"]).figures
                kept |= {key: figure for key, figure in figures.items() if worth_keeping(figure)}
        if not kept:
            return f"nothing was measured that a baseline keeps: {path} is as it was"
        results.write(path, old.merged(kept))
        return f"baseline saved: {path}, {len(kept)} figures"


def gathered(several: Sequence[Mapping[str, Any]]) -> Results:
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
    chosen = options.baselines(config)
    path = chosen.compared
    if path is None or path.exists():
        return []
    there = sorted(other.stem for other in path.parent.glob("*.json"))
    others = f"; there are: {', '.join(there)}" if there else ""
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
            terminalreporter.write_line(line)

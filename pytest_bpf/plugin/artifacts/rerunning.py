"""``--bpf-rerun-traced``: a test that failed runs once more, alone, with its path recorded.

The second run is made when the first has been torn down, before its last report is sent: that one
carries the path, so that it travels from workers and machines like any report. The second run is
reported nowhere else.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from pytest_bpf.plugin.artifacts import tracing
from pytest_bpf.plugin.artifacts.path import path_lines
from pytest_bpf.plugin.items import uses_bpf
from pytest_bpf.plugin.outcomes import PATH, STEPS, steps_of
from pytest_bpf.plugin.stash import EARLIER, TRACED

if TYPE_CHECKING:
    from collections.abc import Generator

    from pytest_bpf.budgets.outcomes import Step

FAILED = pytest.StashKey[str]()
"""On a test: what the failure of its first run says."""

TIMED_OUT = "Failed: Timeout"
"""How the message of a test begins that pytest-timeout ended."""

HOW = "bpf_path_of"
"""The attribute of a report that says of which run its path is."""


def register(config: pytest.Config) -> None:
    """Run tests of this session again that fail."""
    config.pluginmanager.register(Reruns(), "bpf-reruns")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Paths(), "bpf-paths")


class Reruns:
    """Runs a failed test again, in the process that ran it."""

    def __init__(self) -> None:
        self._following: pytest.Item | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Note what comes next: what both tests share is not torn down."""
        self._following = nextitem
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Run a test again when the last report of its failed run is made."""
        report = yield
        if TRACED in item.stash:
            return report
        if report.when != "teardown":
            if report.failed and uses_bpf(item):
                item.stash[FAILED] = _message(report)
            return report
        message = item.stash.get(FAILED, None)
        if message is None:
            return report
        del item.stash[FAILED]
        if EARLIER in item.config.stash or item.config.getoption("usepdb", False):
            return report
        if message.startswith(TIMED_OUT):
            setattr(report, STEPS, [])
            setattr(report, HOW, "not run again: its time limit has passed, and ends no second run")
            return report
        reports = self._run_again(item)
        paths = [getattr(each, STEPS) for each in reports if hasattr(each, STEPS)]
        setattr(report, STEPS, paths[-1] if paths else [])
        setattr(report, HOW, _how(message, reports))
        return report

    def _run_again(self, item: pytest.Item) -> list[pytest.TestReport]:
        _forget_failed_fixtures(item)
        if hasattr(item, "_request"):
            item._request = False  # noqa: SLF001 (pytest's own sign to make a new one)
        item.stash[TRACED] = True
        try:
            return runtestprotocol(item, log=False, nextitem=self._following)
        finally:
            del item.stash[TRACED]
            tracing.end(item.config)


class Paths:
    """Puts the path of the second run into the report of the first, where all reports arrive."""

    def __init__(self) -> None:
        self._failed: dict[tuple[str, Any], pytest.TestReport] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a failed report until the last one of its test comes."""
        key = report.nodeid, getattr(report, "node", None)
        if report.when != "teardown":
            if report.failed:
                self._failed[key] = report
            return
        first = self._failed.pop(key, None)
        if first is not None and hasattr(report, STEPS):
            title = f"{PATH} ({getattr(report, HOW, '')})"
            rows = path_lines(steps_of(report)) or ["no step with BPF"]
            first.sections.append((title, "\n".join(rows)))


def carry(report: pytest.TestReport, steps: tuple[Step, ...]) -> None:
    """Let a report carry a path, as values that travel between processes."""
    setattr(report, STEPS, [asdict(step) for step in steps])


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash else report.longreprtext).strip()
    return text.partition("\n")[0]


def _how(message: str, reports: list[pytest.TestReport]) -> str:
    failed = [each for each in reports if each.failed]
    if not failed:
        return "of a second run, which passed: the failure comes and goes"
    alike = _message(failed[0]) == message
    return f"of a second run, which failed {'alike' if alike else 'in another way'}"


def _forget_failed_fixtures(item: pytest.Item) -> None:
    """Let fixtures of wider scopes be tried again: pytest keeps the exception of a failure."""
    info, request = getattr(item, "_fixtureinfo", None), getattr(item, "_request", None)
    for definitions in getattr(info, "name2fixturedefs", {}).values():
        for definition in definitions:
            if request and definition.cached_result is not None and definition.cached_result[2]:
                with suppress(Exception):  # its end may fail as its beginning did
                    definition.finish(request)

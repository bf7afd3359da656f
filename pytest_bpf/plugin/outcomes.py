"""How tests went, gathered from pytest's reports by the process that hears of every test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.budgets.outcomes import LONGEST, Outcome, Place, step_of
from pytest_bpf.plugin.artifacts.section import TITLE
from pytest_bpf.plugin.items import counts
from pytest_bpf.plugin.matrix.names import strip_kernel

if TYPE_CHECKING:
    import pytest

    from pytest_bpf.budgets.outcomes import Result, Step

PATH = "Path of the test"
"""The title of the section of ``--bpf-trace``."""

STEPS = "bpf_path"
"""The attribute of a report that has the steps of a test's path, as plain values."""

FILES = "bpf_artifact_files"
"""The attribute of a report that names the files that were kept of its test."""

OURS = f"{Path(__file__).parents[1]}/"
"""Where our own code is: no place that a user can mend."""

PLACES = "bpf_places"
"""The attribute of a report that has the lines of C that its failure is about."""


class Outcomes:
    """One `Outcome` for each test and kernel, of the last time that it ran."""

    def __init__(self, kernel: str) -> None:
        """Begin; ``kernel`` is that of reports that name none."""
        self._kernel = kernel
        self._outcomes: dict[tuple[str, str], Outcome] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Add what one phase of a test says."""
        properties: dict[str, Any] = dict(report.user_properties)
        named = str(properties.get("bpf_kernel", ""))
        key = strip_kernel(report.nodeid, named), named or self._kernel
        before = self._outcomes.get(key)
        seconds = report.duration
        if before is not None and report.when != "setup":
            seconds += before.seconds
        result = _result(report)
        if result is None:
            return
        if report.when == "teardown" and before is not None and hasattr(report, STEPS):
            before = replace(before, path=steps_of(report), artifacts=_files(before, report))
        if report.when == "teardown" and report.passed and before is not None:
            self._outcomes[key] = replace(before, seconds=seconds)
            return
        if report.when == "setup" and report.passed:
            self._outcomes[key] = Outcome(*key, "passed", seconds)
            return
        if report.when == "teardown" and before is not None and before.result == "failed":
            result = "failed"
        outcome = Outcome(*key, result, seconds)
        if report.failed:
            outcome = replace(
                outcome,
                message=_message(report),
                text=report.longreprtext[-LONGEST:],
                state=_state(report)[:LONGEST],
                places=tuple(_places(report)),
                path=steps_of(report) or (before.path if before else ()),
                artifacts=_files(before, report),
            )
        elif report.skipped:
            outcome = replace(outcome, message=_reason(report))
        self._outcomes[key] = outcome

    def values(self) -> tuple[Outcome, ...]:
        """Return them, in the order in which the tests came."""
        return tuple(self._outcomes.values())


def _result(report: pytest.TestReport) -> Result | None:
    """Return what a phase says; None for a try that is repeated."""
    if not counts(report):
        return None
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed:
        return "failed" if report.when == "call" else "error"
    return "skipped" if report.skipped else "passed"


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext.strip()
    return str(text).strip().partition("\n")[0][:400]


def _state(report: pytest.TestReport) -> str:
    return dict(report.sections).get(TITLE, "")


def steps_of(report: pytest.TestReport) -> tuple[Step, ...]:
    """Return the path that a report carries."""
    return tuple(step_of(step, "the path") for step in getattr(report, STEPS, ()))


def _files(before: Outcome | None, report: pytest.TestReport) -> tuple[str, ...]:
    earlier = before.artifacts if before else ()
    return tuple(dict.fromkeys((*earlier, *getattr(report, FILES, ()))))


def _reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)[:400]


def _places(report: pytest.TestReport) -> list[Place]:
    places = [Place(*place) for place in getattr(report, PLACES, ())]
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None and crash.lineno > 0 and not str(crash.path).startswith(OURS):
        places.append(Place(str(crash.path), int(crash.lineno), _message(report)))
    if not places:
        file, line, _ = report.location
        places.append(Place(file, (line or 0) + 1, _message(report)))
    return places

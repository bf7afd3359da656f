"""Evidence on pytest's side: what is seen when a test fails."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_bpf.plugin.artifacts.captures import CAPTURES
from pytest_bpf.plugin.artifacts.evidence import Evidence, Failure
from pytest_bpf.plugin.artifacts.files import gather
from pytest_bpf.plugin.artifacts.folder import ATTRIBUTE, pack
from pytest_bpf.plugin.artifacts.path import path_lines
from pytest_bpf.plugin.artifacts.places import places_of
from pytest_bpf.plugin.artifacts.section import TITLE, lines
from pytest_bpf.plugin.artifacts.watching import WATCH, loaders
from pytest_bpf.plugin.outcomes import PATH as PATH_TITLE
from pytest_bpf.plugin.outcomes import PLACES as PLACES_OF_C
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import AGENTS, DROPS, PLACES, TRACED

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from pytest_bpf.budgets.findings import Finding
    from pytest_bpf.kernel.sys.printk import PrintedLine
    from pytest_bpf.plugin.artifacts.observing import Told

LONGEST = 20_000
"""Characters of a failure's message that are looked at."""

LAST_PACKETS = 3
"""Packets of each interface that the section shows."""


def explain(item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> None:
    """Add the state of BPF to the report of a failed test, and the files that are to be kept."""
    chosen = settings(item.config)
    keep = chosen.artifacts is not None and (
        report.failed or (chosen.artifacts_keep == "all" and report.when == "call")
    )
    told = None
    if report.when == "call" or (report.when == "setup" and not report.passed):
        with _harmless(item, report):
            told = _add_path(item, report)
    if TRACED in item.stash:
        return
    if not keep and not (report.failed and chosen.state):
        return
    evidence = None
    with _harmless(item, report):
        evidence = _evidence(item, call, report, told)
        if evidence and report.failed and chosen.state and (text := "\n".join(lines(evidence))):
            report.sections.append((TITLE, text))
    error = call.excinfo.value if call.excinfo else None
    with _harmless(item, report):
        if report.failed:
            places = places_of(error, _findings(item, error), loaders(item))
            setattr(report, PLACES_OF_C, places)
        if keep:
            captures = item.stash.get(CAPTURES, None)
            packets = captures.files() if captures else ()
            every = loaders(item)
            files = gather(item, report, error, evidence, loaders=every, packets=packets)
            setattr(report, ATTRIBUTE, pack(files))


def _add_path(item: pytest.Item, report: pytest.TestReport) -> Told | None:
    """Put the path of a test into its report, where one was recorded; return what it counted."""
    from pytest_bpf.plugin.artifacts import rerunning, tracing

    path, watching = item.config.stash.get(tracing.PATH, None), item.config.stash.get(WATCH, None)
    if path is None:
        return None
    printed: list[PrintedLine] = []
    if watching and watching.trace:
        from pytest_bpf.plugin.artifacts.collecting import printed_lines

        objects = [obj for loader in loaders(item) for obj in loader.objects]
        printed = printed_lines(objects, watching.trace, watching.since)
    steps = path.steps([(line.time, line.text) for line in printed])
    told = path.told()
    tracing.end(item.config)
    if steps:
        rerunning.carry(report, steps)
        report.sections.append((PATH_TITLE, "\n".join(path_lines(steps))))
    return told


@contextmanager
def _harmless(item: pytest.Item, report: pytest.TestReport) -> Iterator[None]:
    """Say in the report what goes wrong here: a failed test is reported, whatever happens."""
    try:
        yield
    except Exception as error:
        if item.config.getoption("fulltrace"):
            raise
        report.sections.append((TITLE, f"could not be read: {type(error).__name__}: {error}"))


def _evidence(
    item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport, told: Told | None
) -> Evidence | None:
    every = loaders(item)
    places = item.stash.get(PLACES, None)
    agents = item.stash[AGENTS].started if AGENTS in item.stash else ()
    if not every and places is None and not agents:
        return None
    from pytest_bpf.plugin.artifacts.collecting import collect

    watching = item.config.stash.get(WATCH, None)
    captures = item.stash.get(CAPTURES, None)
    evidence = collect(
        _failure(item, call, report),
        every,
        namespaces=places.namespaces if places is not None else (),
        drops=item.stash.get(DROPS, None),
        trace=watching.trace if watching else None,
        since=watching.since if watching else 0.0,
        agents=agents,
        told=told,
        notes=[watching.why_no_trace] if watching and watching.why_no_trace else [],
    )
    if captures is None:
        return evidence
    passed = tuple(captures.last(LAST_PACKETS))
    return replace(evidence, passed=passed, notes=(*evidence.notes, *captures.notes))


def _findings(item: pytest.Item, error: BaseException | None) -> list[Finding]:
    """Return what was found of the figures of a test."""
    findings = list(getattr(error, "findings", ()))
    if "pytest_bpf.plugin.budgets.trial" in sys.modules:
        from pytest_bpf.plugin.budgets.trial import TRIAL

        findings += item.stash[TRIAL].findings if TRIAL in item.stash else []
    return findings


def _failure(item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> Failure:
    """Return pytest's explanation, and the figures that broke a limit."""
    text = "\n".join(
        line[1:].strip() for line in report.longreprtext.splitlines() if line.startswith("E")
    )
    error = call.excinfo.value if call.excinfo else None
    findings = _findings(item, error)
    broken = {
        (f.metric, f.subject.removeprefix("prog ")): None for f in findings if f.verdict == "fail"
    }
    return Failure((text or str(error or ""))[:LONGEST], tuple(broken))

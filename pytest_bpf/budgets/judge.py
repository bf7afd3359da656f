"""Limits against figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.budgets.findings import (
    Finding,
    NearLimit,
    NeverRan,
    NotMeasured,
    OverLimit,
    OverTarget,
    UnknownSubject,
    WithinLimit,
    bounds_of,
)
from pytest_bpf.budgets.limits import Limit, resolve
from pytest_bpf.costs.figures.figure import METRICS, NEVER_RAN, Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TWINS = {"run_time": "instructions", "instructions": "run_time"}
"""The same cost by another instrument. With limits on both, only the one measured here counts."""

_EVENTS = "no ring or perf buffer was read"
_NOTHING = "nothing in this test measures it"
_LATENCY = f"{_NOTHING}; name the member that has an event's time by bpf_costs(..., latency=)"
_SPEED = f"{_NOTHING}; give bpf_budget what pytest_bpf.map_speed returns"

HOW = {
    **dict.fromkeys(("loss", "events", "events_per_second"), _EVENTS),
    **dict.fromkeys(("latency_p50", "latency_p95", "latency_p99", "latency_max"), _LATENCY),
    "overhead": f"{_NOTHING}; bpf_overhead does",
    **dict.fromkeys(("lookup", "update"), _SPEED),
    "instructions": "they are counted in exact mode alone (--bpf-exact)",
    "run_time": "in exact mode time is a count of instructions",
}
"""By metric, why a test has no figure of it, and what to do."""


def judge(limits: Iterable[Limit], figures: Iterable[Figure]) -> list[Finding]:
    """Return what is to be said of each limit, in the order of the limits.

    A limit for one subject overrides a limit for all subjects. A limit of a marker or a test must
    find a figure: without one the finding is `NotMeasured`. Other limits are left out then.
    """
    limits_in_force = resolve(limits)
    measured_figures = list(figures)
    special = {(limit.metric, limit.subject) for limit in limits_in_force if limit.subject}
    measured = {figure.metric for figure in measured_figures if figure.value is not None}
    subjects = {name for figure in measured_figures for name in names(figure.subject)}
    findings: list[Finding] = []
    for limit in limits_in_force:
        matching = [figure for figure in measured_figures if _applies(limit, figure, special)]
        twin = TWINS.get(limit.metric)
        stands_in = twin in measured and any(other.metric == twin for other in limits_in_force)
        if stands_in and not any(figure.value is not None for figure in matching):
            continue
        if limit.mandatory and limit.subject and limit.subject not in subjects:
            names_here = tuple(sorted(subjects))
            findings.append(UnknownSubject(limit.metric, limit.subject, limit, names_here))
        else:
            findings += _findings(limit, matching)
    return findings


def names(subject: str) -> tuple[str, ...]:
    """Return how a subject may be named: ``"prog a.bpf.c:count"`` also as ``"prog count"``."""
    kind, _, name = subject.partition(" ")
    short = name.rpartition(":")[2]
    return (subject,) if short == name else (subject, f"{kind} {short}")


def _applies(limit: Limit, figure: Figure, special: set[tuple[str, str]]) -> bool:
    """Say whether this limit is the one for a figure; ``special`` are those for one subject."""
    if limit.metric != figure.metric:
        return False
    aliases = names(figure.subject)
    if limit.subject:
        return limit.subject in aliases
    return not any((figure.metric, name) in special for name in aliases)


def _findings(limit: Limit, figures: Sequence[Figure]) -> Iterator[Finding]:
    whole = [figure for figure in figures if figure.value is not None and _is_total(figure)]
    candidates = whole or figures
    measured = [figure for figure in candidates if figure.value is not None]
    yield from (_check(limit, figure) for figure in measured)
    if not limit.mandatory:
        return
    idle = [figure for figure in candidates if figure.why_not == NEVER_RAN]
    if idle and not measured:
        subject = limit.subject or (idle[0].subject if len(idle) == 1 else "")
        yield NeverRan(limit.metric, subject, limit)
        return
    for figure in candidates:
        if figure.value is None:
            yield NotMeasured(limit.metric, figure.subject, limit, figure.why_not)
    if not candidates:
        why_not = HOW.get(limit.metric, _NOTHING)
        yield NotMeasured(limit.metric, limit.subject, limit, why_not)


def _is_total(figure: Figure) -> bool:
    """Say whether a figure is of a workload or an agent as a whole, not of a part of it."""
    return not figure.subject or figure.subject.startswith("agent ")


def _check(limit: Limit, figure: Figure) -> Finding:
    about = (limit.metric, figure.subject, figure, limit)
    lower, upper = bounds_of(figure)
    if METRICS[limit.metric].better == "higher":
        lower, upper = -upper, -lower
        bounds = [None if b is None else -b for b in (limit.target, limit.alarm)]
    else:
        bounds = [limit.target, limit.alarm]
    target, alarm = bounds
    if alarm is not None and lower > alarm:
        return OverLimit(*about)
    if alarm is not None and upper > alarm:
        return NearLimit(*about)
    if target is not None and lower > target:
        return OverTarget(*about)
    if target is not None and upper > target:
        return NearLimit(*about)
    return WithinLimit(*about)

"""Limits against figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.budgets.findings import (
    Broken,
    Finding,
    Missed,
    NeverRan,
    Undecided,
    Unknown,
    Unmeasured,
    Within,
    interval,
)
from pytest_bpf.budgets.limits import Limit, effective
from pytest_bpf.costs.figure import METRICS, NEVER_RAN, Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TWINS = {"run_time": "instructions", "instructions": "run_time"}
"""The same by another instrument: of a limit on each, that one counts which this kernel has."""

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

    A limit for one subject goes before one for all of them. Of the figures of one metric and
    subject all must keep it. A limit that is demanded and finds no figure is `Unmeasured`; another
    one is left out.
    """
    kept = effective(limits)
    known = list(figures)
    special = {(limit.metric, limit.subject) for limit in kept if limit.subject}
    there = {figure.metric for figure in known if figure.value is not None}
    subjects = {name for figure in known for name in names(figure.subject)}
    findings: list[Finding] = []
    for limit in kept:
        mine = [figure for figure in known if _concerns(limit, figure, special)]
        twin = TWINS.get(limit.metric)
        stands_in = twin in there and any(other.metric == twin for other in kept)
        if stands_in and not any(figure.value is not None for figure in mine):
            continue
        if limit.demanded and limit.subject and limit.subject not in subjects:
            known_names = tuple(sorted(subjects))
            findings.append(Unknown(limit.metric, limit.subject, limit, known_names))
        else:
            findings += _findings(limit, mine)
    return findings


def names(subject: str) -> tuple[str, ...]:
    """Return how a subject may be named: ``"prog a.bpf.c:count"`` also as ``"prog count"``."""
    kind, _, name = subject.partition(" ")
    short = name.rpartition(":")[2]
    return (subject,) if short == name else (subject, f"{kind} {short}")


def _concerns(limit: Limit, figure: Figure, special: set[tuple[str, str]]) -> bool:
    """Say whether this limit is the one for a figure; ``special`` are those for one subject."""
    if limit.metric != figure.metric:
        return False
    named = names(figure.subject)
    if limit.subject:
        return limit.subject in named
    return not any((figure.metric, name) in special for name in named)


def _findings(limit: Limit, figures: Sequence[Figure]) -> Iterator[Finding]:
    whole = [figure for figure in figures if figure.value is not None and _of_a_whole(figure)]
    chosen = whole or figures
    there = [figure for figure in chosen if figure.value is not None]
    yield from (_held_against(limit, figure) for figure in there)
    if not limit.demanded:
        return
    idle = [figure for figure in chosen if figure.why_not == NEVER_RAN]
    if idle and not there:
        subject = limit.subject or (idle[0].subject if len(idle) == 1 else "")
        yield NeverRan(limit.metric, subject, limit)
        return
    for figure in chosen:
        if figure.value is None:
            yield Unmeasured(limit.metric, figure.subject, limit, figure.why_not)
    if not chosen:
        why_not = HOW.get(limit.metric, _NOTHING)
        yield Unmeasured(limit.metric, limit.subject, limit, why_not)


def _of_a_whole(figure: Figure) -> bool:
    """Say whether a figure is of a workload or an agent as a whole, not of a part of it."""
    return not figure.subject or figure.subject.startswith("agent ")


def _held_against(limit: Limit, figure: Figure) -> Finding:
    about = (limit.metric, figure.subject, figure, limit)
    lower, upper = interval(figure)
    if METRICS[limit.metric].better == "higher":
        lower, upper = -upper, -lower
        bounds = [None if b is None else -b for b in (limit.target, limit.alarm)]
    else:
        bounds = [limit.target, limit.alarm]
    target, alarm = bounds
    if alarm is not None and lower > alarm:
        return Broken(*about)
    if alarm is not None and upper > alarm:
        return Undecided(*about)
    if target is not None and lower > target:
        return Missed(*about)
    if target is not None and upper > target:
        return Undecided(*about)
    return Within(*about)

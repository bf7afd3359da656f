"""Draining a full buffer of 4 MiB, events of 16 bytes: ours, BCC, pylibbpf, libbpf."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.event_ways import BCC, OURS, TYPED, C, ways
from benchmarks.pairs import Laps, Spread, ratio, take_turns
from benchmarks.report import Report, estimate, goal, spread

if TYPE_CHECKING:
    from benchmarks.event_ways import Kind, Way

ROUNDS = 30
EVENTS = 200_000
"""More than there is room for."""


def measure(rounds: int = ROUNDS) -> Report:
    """Fill and drain each in turn; a ring first, then a perf buffer."""
    columns = ["reader"]
    for what in ("ring", "perf"):
        columns += [f"{what}, ns an event", "times as fast as BCC", "times C's"]
    report = Report("Draining a full buffer, ns an event", columns)
    cells: dict[str, list[str]] = {}
    for kind in ("ring", "perf"):
        taken = _taken(kind, rounds, report)
        for way in dict.fromkeys([*cells, *taken]):
            row = cells.setdefault(way, ["", "", ""] if kind == "perf" else [])
            row += _cells(way, taken)
        report.remarks += _goals(kind, taken)
    report.rows += [(way, *row) for way, row in cells.items()]
    return report


def _taken(kind: Kind, rounds: int, report: Report) -> dict[str, list[float]]:
    with ways(kind) as (found, absent):
        if absent:
            report.remarks.append(f"Not measured, {kind}: {'; '.join(absent)}.")
        measured = take_turns({name: partial(_drained, way) for name, way in found.items()}, rounds)
    return {name: [laps["drain"] for laps in runs] for name, runs in measured.items()}


def _drained(way: Way) -> Laps:
    expected = way.put(EVENTS)
    way.tell("drain")
    ns, *seen = way.answer()
    if tuple(seen) != expected or expected[0] >= EVENTS:
        raise AssertionError(f"{seen} is not {expected}, events and the sum of their numbers")
    return Laps(drain=ns / seen[0])


def _cells(way: str, taken: dict[str, list[float]]) -> list[str]:
    if way not in taken:
        return ["", "", ""]
    bcc, c = (taken.get(other) for other in (BCC, C))
    return [
        spread(Spread.of(taken[way])),
        estimate(ratio(bcc, taken[way])) if bcc and way != BCC else "",
        estimate(ratio(taken[way], c)) if c and way != C else "",
    ]


def _goals(kind: Kind, taken: dict[str, list[float]]) -> list[str]:
    goals = []
    for way, other, least, most in (
        (OURS, BCC, 80 if kind == "ring" else 1, None),
        (TYPED, BCC, 5 if kind == "ring" else 1, None),
        (OURS, C, None, 4),
    ):
        if other not in taken or (kind == "perf" and least == 1):
            continue
        if least is not None:
            faster = ratio(taken[other], taken[way])
            goals.append(
                goal(f"{kind}, {way}: at least {least} times as fast as BCC", faster, least=least)
            )
        if most is not None:
            slower = ratio(taken[way], taken[other])
            goals.append(goal(f"{kind}, {way}: at most {most} times C's", slower, most=most))
    return goals


if __name__ == "__main__":
    print(measure().markdown())

"""A writer that never waits, and each reader in turn: what arrives, and what is lost.

Flat out first, then at a million events a second, into buffers of 4 MiB.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.event_ways import OURS, C, ways
from benchmarks.pairs import Laps, Spread, ratio, take_turns
from benchmarks.report import Report, estimate, goal, spread

if TYPE_CHECKING:
    from benchmarks.event_ways import Kind, Way

ROUNDS = 12
SECONDS = 0.5
RATE = 1_000_000
AT_ONCE = 200_000
FITS = 100_000
"""So many there is room for."""


def measure(rounds: int = ROUNDS) -> Report:
    """Measure; rates are million events a second of the writer's time.

    How fast the writer is alone says what more there could be.
    """
    columns = ("buffer, reader", "flat out, M/s", "times C's", "lost", "lost at 1 M/s")
    report = Report("Live, flat out, million events delivered a second", columns)
    for kind in ("ring", "perf"):
        with ways(kind) as (found, absent):
            if absent:
                report.remarks.append(f"Not measured, {kind}: {'; '.join(absent)}.")
            turns = {name: partial(_both, way, name == OURS) for name, way in found.items()}
            measured = take_turns(turns, rounds, warm_up=1)
        _report(kind, measured, report)
    return report


def _both(way: Way, with_alone: bool) -> Laps:
    flat = _live(way, partial(_flat_out, way))
    paced = _live(way, partial(_paced, way))
    return Laps(
        alone=_alone(way) if with_alone else 0.0,
        rate=flat["delivered"] / flat["seconds"] / 1e6,
        lost=flat["lost"],
        generated=flat["lost"] + flat["delivered"],
        lost_paced=paced["lost"],
        generated_paced=paced["lost"] + paced["delivered"],
    )


def _alone(way: Way) -> float:
    """Return how fast it writes into an empty buffer that nobody reads, in M/s: nothing is faster.

    The reader comes after; ours then stands where no event wakes it.
    """
    written, seconds = 0, 0.0
    for _ in range(5):
        begin = time.perf_counter()
        written += way.put(FITS)[0]
        seconds += time.perf_counter() - begin
        way.tell("drain")
        way.answer()
    return written / seconds / 1e6


def _live(way: Way, write: partial[tuple[int, int]]) -> dict[str, float]:
    failed = way.obj.globals["failed"]
    way.tell("live")
    begin = time.perf_counter()
    expected = write()
    seconds = time.perf_counter() - begin
    lost = way.obj.globals["failed"] - failed
    way.end()
    _, *seen = way.answer()
    if tuple(seen) != expected:
        raise AssertionError(f"{seen} is not {expected}, events and the sum of their numbers")
    return {"delivered": expected[0], "lost": lost, "seconds": seconds}


def _flat_out(way: Way) -> tuple[int, int]:
    end = time.perf_counter() + SECONDS
    delivered = total = 0
    while time.perf_counter() < end:
        count, added = way.put(AT_ONCE)
        delivered, total = delivered + count, total + added
    return delivered, total


def _paced(way: Way) -> tuple[int, int]:
    """Write what is due, every millisecond."""
    begin = time.perf_counter()
    written = delivered = total = 0
    while (passed := time.perf_counter() - begin) < SECONDS:
        due = min(int(passed * RATE) - written, RATE // 100)
        count, added = way.put(due)
        written += due
        delivered, total = delivered + count, total + added
        time.sleep(0.001)
    return delivered, total


def _report(kind: Kind, measured: dict[str, list[Laps]], report: Report) -> None:
    rates = {name: [laps["rate"] for laps in runs] for name, runs in measured.items()}
    for name, runs in measured.items():
        times = ratio(rates[name], rates[C]) if C in rates else None
        lost, paced = (
            sum(laps[f"lost{of}"] for laps in runs) / sum(laps[f"generated{of}"] for laps in runs)
            for of in ("", "_paced")
        )
        report.rows.append(
            (
                f"{kind}, {name}",
                spread(Spread.of(rates[name])),
                estimate(times) if times and name != C else "",
                f"{lost:.1%}",
                f"{paced:.2%}" if paced else "nothing",
            )
        )
        if name == OURS:
            alone = [laps["alone"] for laps in runs]
            most = ratio(alone, rates[C]) if C in rates else None
            limit = (f"{kind}, the writer alone", spread(Spread.of(alone)))
            report.rows.append((*limit, estimate(most) if most else "", "", ""))
        if name == OURS and times:
            report.remarks.append(
                goal(f"{kind}: at least 2 times C's default consumer", times, least=2)
            )
        if name == OURS and kind == "ring":
            kept = "reached" if not paced else "not reached"
            report.remarks.append(f"Goal: {kind}: nothing lost at 1 M/s: **{kept}**.")


if __name__ == "__main__":
    print(measure().markdown())

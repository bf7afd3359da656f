"""A minute of two writers and one reader for each way of reading, every event checked."""

from __future__ import annotations

from benchmarks.event_ways import first
from benchmarks.report import Report
from pytest_bpf.loader import Loader
from tests.event_stress import SOURCE, stress

ROUNDS = 60
"""Seconds of each."""

WAYS = {
    "ring, woken by events": ("ring", None),
    "ring, looking every ms": ("ring", 0.001),
    "perf, woken by events": ("perf", None),
    "perf, looking every ms": ("perf", 0.001),
}


def measure(rounds: int = ROUNDS) -> Report:
    """Run each for ``rounds`` seconds; the first event that is wrong ends it."""
    columns = (
        "buffer, reader",
        "events",
        "readings",
        "found no room at first",
        "discarded",
        "wrong",
    )
    report = Report(f"Two writers and one reader, {rounds} s each", columns)
    report.remarks.append(
        "Every event was checked: its number is the one after its writer's last, its words and "
        "their sum are those of its number. One that found no room was put out again."
    )
    with Loader() as loader, first():
        obj = loader.load(SOURCE)
        for way, (kind, every) in WAYS.items():
            try:
                done = stress(obj, kind, rounds, every=every)
            except AssertionError as error:
                report.rows.append((way, "", "", "", "", f"**{error}**"))
                continue
            counts = (done.events, done.batches, done.full, done.discarded)
            report.rows.append((way, *(f"{count:,}" for count in counts), "none"))
    return report


if __name__ == "__main__":
    print(measure().markdown())

"""The kernel's own annotated programs, run by `pytest_bpf.plugin.collect` and by a loop in C.

The sources come from Debian's package linux-source-6.12, and lie in the cache; none of them is part
of this project. Both ways use the same objects, kernel and libbpf. This measures how long each way
takes; ``python -m benchmarks.selftests`` compares the answers with the lists of `differences`.
"""

from __future__ import annotations

import subprocess

from benchmarks.pairs import Laps, ratio, take_turns
from benchmarks.report import Report, estimate, goal
from benchmarks.selftests import sources, ways
from pytest_bpf.errors import UnavailableError

ROUNDS = 3
OURS, THEIRS = "pytest-bpf", "C over libbpf"


def measure(rounds: int) -> Report:
    """Run the suite both ways, in turn."""
    report = Report("The kernel's annotated programs (6.12)", ("", "value"))
    try:
        loop, whole = ways.c_loop(), sources.suite()
    except (UnavailableError, subprocess.CalledProcessError, OSError) as error:
        report.remarks.append(f"Not measured: {error}")
        return report
    wanted = [pair for pair in whole.cases if ways.runnable(pair[1])]

    def theirs() -> Laps:
        laps = Laps()
        with laps.time("all"):
            ways.run_c(loop, wanted)
        return laps

    def ours() -> Laps:
        laps = Laps()
        with laps.time("all"):
            ways.run_ours(wanted)
        return laps

    measured = take_turns({OURS: ours, THEIRS: theirs}, rounds, warm_up=0)
    times = {way: [laps["all"] for laps in runs] for way, runs in measured.items()}
    against = ratio(times[OURS], times[THEIRS])
    report.rows.append(("programs and modes", str(len(wanted))))
    report.remarks += [
        f"Time against a loop in C over the same libbpf: {estimate(against)}.",
        goal("at most 1.5 times the loop's time", against, most=1.5),
    ]
    return report

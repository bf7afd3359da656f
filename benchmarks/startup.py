"""What the plugin adds to a pytest session: unused, and by the first test that uses it.

Every session is a process of its own, timed from its start to its end. Their bytecode goes to a
folder of the benchmark's, whatever the environment says: a user's is cached too.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.pairs import Laps, Spread, difference, take_turns
from benchmarks.report import Report, estimate, goal, spread

ROUNDS = 40
PROGRAM = Path(__file__).with_name("programs") / "passed.bpf.c"
QUIET = ("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")

EMPTY = """\
def test_nothing():
    pass
"""
ONE = """\
def test_counts(bpf, bpf_netns_pair):
    left, right = bpf_netns_pair
    obj = bpf.load("passed.bpf.c")
    obj.programs["count"].attach(right.iface)
    left.traffic.ping(to=right, count=10)
    assert obj.maps["passed"].sum(0) == 10
"""

WITHOUT, UNUSED, USED = "-p no:bpf", "plugin unused", "one test of ten packets"


def measure(rounds: int = ROUNDS) -> Report:
    """Measure three sessions in turn."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty_test.py").write_text(EMPTY)
        (folder / "one_test.py").write_text(ONE)
        shutil.copy(PROGRAM, folder)
        ways = {
            WITHOUT: lambda: _session(folder, "-p", "no:bpf", "empty_test.py"),
            UNUSED: lambda: _session(folder, "empty_test.py"),
            USED: lambda: _session(folder, "one_test.py"),
        }
        measured = take_turns(ways, rounds)
    columns = ("session", "start to end", f"more than `{WITHOUT}`", "CPU time", "more")
    report = Report("A pytest session, ms", columns)
    for way, runs in measured.items():
        cells = [f"`{way}`" if way == WITHOUT else way]
        for what in ("start to end", "CPU time"):
            taken, without = ([laps[what] for laps in some] for some in (runs, measured[WITHOUT]))
            cells.append(spread(Spread.of(taken)))
            cells.append("" if way == WITHOUT else estimate(difference(taken, without)))
            if (way, what) == (UNUSED, "start to end"):
                more = difference(taken, without)
                report.remarks.append(goal("unused, less than 20 ms more", more, most=20))
        report.rows.append(cells)
    return report


def _session(folder: Path, *arguments: str) -> Laps:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    laps = Laps()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with laps.time("start to end"):
        done = subprocess.run(
            (sys.executable, "-m", "pytest", *QUIET, *arguments),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    laps["CPU time"] = used * 1000
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return laps


if __name__ == "__main__":
    print(measure().markdown())

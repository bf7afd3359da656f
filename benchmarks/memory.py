"""What a thousand tests leave in the memory of their session, beside tests that load nothing.

Every session is a process of its own with pytest and this plugin alone. It counts its own anonymous
pages after the hundredth test and after a thousand more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.pairs import Laps, Spread, difference, take_turns
from benchmarks.report import Report, estimate, goal, spread

ROUNDS = 3
PROGRAM = Path(__file__).with_name("programs") / "passed.bpf.c"
FIRST, TESTS = 100, 1000
MB = 1024
"""Kilobytes."""

COUNTING = f"""\
import gc, re
from pathlib import Path

pages = []
finished = 0

def pytest_runtest_logfinish():
    global finished
    finished += 1
    if finished in ({FIRST}, {FIRST + TESTS}):
        gc.collect()
        status = Path("/proc/self/status").read_text()
        pages.append(int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]))

def pytest_unconfigure():
    print("PAGES", pages[1] - pages[0])
"""
NOTHING = f"""\
import pytest

@pytest.mark.parametrize("number", range({FIRST + TESTS + 1}))
def test_nothing(number):
    pass
"""
LOAD = f"""\
import pytest

@pytest.mark.parametrize("number", range({FIRST + TESTS + 1}))
def test_runs(bpf, number):
    obj = bpf.load("passed.bpf.c")
    assert obj.programs["count"].test_run(bytes(64)).retval == 2
    assert obj.maps["passed"].sum(0) == 1
"""

ALONE, USED = "tests that do nothing", "tests that load, run and read"


def measure(rounds: int = ROUNDS) -> Report:
    """Measure both sessions in turn."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conftest.py").write_text(COUNTING)
        (folder / "nothing_test.py").write_text(NOTHING)
        (folder / "load_test.py").write_text(LOAD)
        shutil.copy(PROGRAM, folder)
        ways = {
            ALONE: lambda: _session(folder, "nothing_test.py"),
            USED: lambda: _session(folder, "load_test.py"),
        }
        measured = take_turns(ways, rounds, warm_up=0)
    report = Report(f"Memory that {TESTS:,} tests keep, MB", ("tests", "kept", "more"))
    kept = {way: [laps["kept"] for laps in runs] for way, runs in measured.items()}
    for way, values in kept.items():
        more = estimate(difference(values, kept[ALONE])) if way != ALONE else ""
        report.rows.append((way, spread(Spread.of(values)), more))
    ours = difference(kept[USED], [0.0] * rounds)
    report.remarks.append(goal(f"{USED}: at most 4 MB", ours, most=4))
    return report


def _session(folder: Path, file: str) -> Laps:
    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-s", "-p", "pytest_bpf.plugin", file),
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{file}:\n{done.stdout}{done.stderr}")
    laps = Laps()
    laps["kept"] = int(done.stdout.partition("PAGES ")[2].split()[0]) / MB
    return laps


if __name__ == "__main__":
    print(measure().markdown())

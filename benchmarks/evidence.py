"""What the evidence for failed tests costs tests that pass: the state of BPF, and artifacts.

Each session has many tests of ten packets, and tells how long their phases took. The ways take
turns: without evidence, with the state of BPF, and with a folder of artifacts as well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.pairs import Laps, Spread, ratio, take_turns
from benchmarks.report import Report, estimate, goal, spread

ROUNDS = 20
TESTS = 40
PROGRAM = Path(__file__).with_name("programs") / "passed.bpf.c"

CONFTEST = """\
import resource
import pytest


def pytest_runtest_logreport(report):
    with open("durations", "a") as file:
        print(report.duration, file=file)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session):
    before = resource.getrusage(resource.RUSAGE_SELF)
    yield
    after = resource.getrusage(resource.RUSAGE_SELF)
    with open("cpu", "w") as file:
        print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, file=file)
    return True
"""
MANY = f"""\
import pytest


@pytest.mark.parametrize("n", range({TESTS}))
def test_counts(n, bpf, bpf_netns_pair):
    left, right = bpf_netns_pair
    obj = bpf.load("passed.bpf.c")
    obj.programs["count"].attach(right.iface)
    left.traffic.ping(to=right, count=10)
    assert obj.maps["passed"].sum(0) == 10
"""

OFF, STATE, KEPT = "--bpf-state=off", "the state of BPF (default)", "--bpf-artifacts"


def measure(rounds: int = ROUNDS) -> Report:
    """Measure three sessions in turn."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "test_many.py").write_text(MANY)
        shutil.copy(PROGRAM, folder)
        ways = {
            OFF: lambda: _session(folder, "--bpf-state=off"),
            STATE: lambda: _session(folder, "--bpf-state=on"),
            KEPT: lambda: _session(folder, "--bpf-artifacts=kept"),
        }
        measured = take_turns(ways, rounds, warm_up=1)
    columns = ("way", "ms a test", "of it without", "CPU ms a test", "of it without")
    report = Report("Evidence for failed tests, cost on passing ones", columns)
    for way, runs in measured.items():
        cells = [f"`{way}`" if way.startswith("-") else way]
        for what in ("time", "CPU"):
            taken, without = ([laps[what] for laps in some] for some in (runs, measured[OFF]))
            compared = ratio(taken, without)
            cells += [spread(Spread.of(taken)), "" if way == OFF else estimate(compared)]
            if (way, what) == (STATE, "CPU"):
                report.remarks.append(goal("at most 5 % more CPU time", compared, most=1.05))
        report.rows.append(cells)
    return report


def _session(folder: Path, option: str) -> Laps:
    for name in ("durations", "cpu"):
        (folder / name).unlink(missing_ok=True)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", option)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    durations = map(float, (folder / "durations").read_text().split())
    return Laps(
        time=sum(durations) * 1000 / TESTS, CPU=float((folder / "cpu").read_text()) * 1000 / TESTS
    )

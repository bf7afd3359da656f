"""A restored machine: how soon its Python speaks, how long a session takes, and how big it is.

The machines are saved before, once; each run restores one. Hypothesis is installed: its plugin is a
part of every session, here and in the machine.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.pairs import Laps, Spread, difference, ratio, take_turns
from benchmarks.report import Report, estimate, goal, spread
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernels import lookup
from pytest_bpf.vm import qemu

ROUNDS = 15
KERNEL = ("--kernel", "debian")
SPEAK = "import pytest; print('up', flush=True); input()"
TEST = "import os\ndef test_kernel():\n    assert os.uname().release == {release!r}\n"
GIVEN = """\
from hypothesis import given, strategies

@given(strategies.integers())
def test_given(number):
    assert number == number
"""
SMALL = """\
import pytest

@pytest.mark.parametrize("number", range(100))
def test_counts(number, bpf):
    obj = bpf.load("passed.bpf.c")
    obj.programs["count"].test_run(bytes(64), repeat=10)
    assert obj.maps["passed"].sum(0) == 10
"""
PAIRS = """\
import pytest

@pytest.mark.parametrize("number", range(100))
def test_counts(number, bpf, bpf_netns_pair):
    left, right = bpf_netns_pair
    obj = bpf.load("passed.bpf.c")
    obj.programs["count"].attach(right.iface)
    left.traffic.ping(to=right, count=10)
    assert obj.maps["passed"].sum(0) == 10
"""
PROGRAM = Path(__file__).with_name("programs") / "passed.bpf.c"

LINE, SESSION = "first line of Python, pytest imported", "session of one test"
HERE, GIVEN_SESSION = "session of one test, here", "session of one test with @given"
PLUGINS = ("bpf", "hypothesispytest", "xdist")
"""Of what is installed here, these are a part of each session."""

QUIET = tuple(word for name in PLUGINS for word in ("-p", name))

TIME, CPU, RESIDENT, SHARE = "s", "CPU s", "MB resident", "MB proportional"
EXACT_LINE, EXACT_SESSION = f"{LINE}, exact", f"{SESSION}, exact"
GOALS = {
    LINE: {TIME: 0.6, RESIDENT: 200.0},
    EXACT_LINE: {TIME: 0.6, RESIDENT: 200.0},
    SESSION: {TIME: 1.2},
    EXACT_SESSION: {TIME: 1.4},
    GIVEN_SESSION: {TIME: 2.0},
}

MANY_ROUNDS = 3
"""Each takes half a minute."""


def measure(rounds: int = ROUNDS) -> Report:
    """Measure a command and a session, plain and exact, in turn."""
    report = Report("A restored machine", ("what", TIME, CPU, RESIDENT, SHARE))
    try:
        qemu.program()
        kernel = lookup.find("debian")
    except UnavailableError as error:
        report.remarks.append(f"Not measured: {error}.")
        return report
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_one.py").write_text(TEST.format(release=str(kernel)))
        (folder / "test_nothing.py").write_text("def test_nothing(): pass\n")
        (folder / "test_given.py").write_text(GIVEN)
        (folder / "test_small.py").write_text(SMALL)
        (folder / "test_pairs.py").write_text(PAIRS)
        shutil.copy(PROGRAM, folder)
        ways = {
            LINE: partial(_line),
            EXACT_LINE: partial(_line, "--exact"),
            HERE: partial(_session, folder, "test_nothing.py"),
            SESSION: partial(_session, folder, "test_one.py", "--bpf-kernel=debian"),
            EXACT_SESSION: partial(_session, folder, "test_one.py", "--bpf-exact"),
            GIVEN_SESSION: partial(_session, folder, "test_given.py", "--bpf-kernel=debian"),
        }
        measured = take_turns(ways, rounds, warm_up=1)
        report.remarks += _many(folder, "test_small.py", "tests that load a program and run it")
        report.remarks += _many(folder, "test_pairs.py", "tests with a pair of namespaces")
        report.remarks.append(_two())
    report.remarks.append(f"Kernel {kernel}, one CPU, {qemu.MEMORY} MiB.")
    for way, runs in measured.items():
        found = {what: [laps[what] for laps in runs] for what in runs[0]}
        for what, most in GOALS.get(way, {}).items():
            measured_at = difference(found[what], [0.0] * len(runs))
            title = f"{way}, at most {most:g} {what}"
            report.remarks.append(goal(title, measured_at, most=most))
        columns = report.columns[1:]
        cells = (spread(Spread.of(found[what])) if what in found else "" for what in columns)
        report.rows.append((way, *cells))
    return report


def _many(folder: Path, file: str, what: str) -> list[str]:
    """Compare a hundred small tests here, in a machine, and in two."""
    ways = {
        "here": partial(_session, folder, file),
        "one": partial(_session, folder, file, "--bpf-kernel=debian"),
        "two": partial(_session, folder, file, "--bpf-kernel=debian", "-n2"),
    }
    runs = take_turns(ways, MANY_ROUNDS, warm_up=1)
    here, one, two = ([laps[TIME] for laps in runs[way]] for way in ways)
    longer, faster = ratio(one, here), ratio(one, two)
    found = (
        f"A hundred {what}, {spread(Spread.of(here))} s here: {estimate(longer)} times as long in "
        f"a machine; two machines are {estimate(faster)} times as fast as one."
    )
    return [
        found,
        goal(f"a hundred {what}, at most 3 times as long in a machine", longer, most=3.0),
        goal(f"a hundred {what}, two machines at least 1.8 times as fast", faster, least=1.8),
    ]


def _two() -> str:
    """Say how much of a second machine's memory is the first one's."""
    command = [sys.executable, "-m", "pytest_bpf.vm", *KERNEL, "--", sys.executable, "-c", SPEAK]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    sizes = []
    for process in started:
        assert process.stdout
        process.stdout.readline()
    for process in started:
        (machine,) = psutil.Process(process.pid).children()
        sizes.append(machine.memory_full_info())
    for process in started:
        process.communicate(b"\n")
    resident, own = (sum(getattr(size, name) for size in sizes) / 2e6 for name in ("rss", "uss"))
    return (
        f"Two machines of a kernel share their pages: of {resident:.0f} MB resident, each has "
        f"{own:.0f} MB of its own."
    )


def _line(*options: str) -> Laps:
    """Time a command until its first line, and look at qemu then."""
    command = [sys.executable, "-m", "pytest_bpf.vm", *KERNEL, *options, "--", sys.executable]
    laps, timer = Laps(), Laps()
    before = _used()
    with timer.time(TIME):
        process = subprocess.Popen(
            [*command, "-c", SPEAK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout
        said = process.stdout.readline()
    laps[TIME] = timer[TIME] / 1000
    (machine,) = psutil.Process(process.pid).children()
    memory = machine.memory_full_info()
    laps[RESIDENT], laps[SHARE] = memory.rss / 1e6, memory.pss / 1e6
    process.communicate(b"\n")
    laps[CPU] = _used() - before
    if said != b"up\n" or process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return laps


def _session(folder: Path, *arguments: str) -> Laps:
    """Time a pytest session from its start to its end."""
    command = [sys.executable, "-m", "pytest", "-q", *QUIET, *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    laps, timer = Laps(), Laps()
    before = _used()
    with timer.time(TIME):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    laps[TIME] = timer[TIME] / 1000
    laps[CPU] = _used() - before
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return laps


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

"""A restored machine: how soon its Python speaks, how long a session takes, and how big it is.

The machines are saved before, once; each run restores one.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.pairs import Laps, Spread, difference, take_turns
from benchmarks.report import Report, goal, spread
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernels import lookup
from pytest_bpf.vm import qemu

ROUNDS = 15
KERNEL = ("--kernel", "debian")
SPEAK = "import pytest; print('up', flush=True); input()"
TEST = "import os\ndef test_kernel():\n    assert os.uname().release == {release!r}\n"

LINE, SESSION = "first line of Python, pytest imported", "session of one test"
QUIET = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
"""Hypothesis is here for our own tests, and its plugin takes half a second of every session."""

TIME, CPU, RESIDENT, SHARE = "s", "CPU s", "MB resident", "MB proportional"
GOALS = {(LINE, TIME): 0.6, (SESSION, TIME): 2.5, (LINE, RESIDENT): 200.0}


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
        ways = {
            LINE: partial(_line),
            f"{LINE}, exact": partial(_line, "--exact"),
            SESSION: partial(_session, folder, "--bpf-kernel=debian"),
            f"{SESSION}, exact": partial(_session, folder, "--bpf-exact"),
        }
        measured = take_turns(ways, rounds, warm_up=1)
    report.remarks.append(f"Kernel {kernel}, one CPU, {qemu.MEMORY} MiB.")
    for way, runs in measured.items():
        found = {what: [laps[what] for laps in runs] for what in runs[0]}
        for (of, what), most in GOALS.items():
            if way.startswith(of):
                estimate = difference(found[what], [0.0] * len(runs))
                report.remarks.append(goal(f"{way}, at most {most:g} {what}", estimate, most=most))
        columns = report.columns[1:]
        cells = (spread(Spread.of(found[what])) if what in found else "" for what in columns)
        report.rows.append((way, *cells))
    return report


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


def _session(folder: Path, option: str) -> Laps:
    """Time a pytest session from its start to its end."""
    command = [sys.executable, "-m", "pytest", "-q", *QUIET, option]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
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

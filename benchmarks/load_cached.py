"""A load from the cache, against BCC's compile and load of the same program."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pairs import Laps, Spread, ratio, take_turns
from benchmarks.report import Report, estimate, goal, spread
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 30
PROGRAMS = Path(__file__).with_name("programs")
SYSTEM_PYTHON = "/usr/bin/python3"
HEADERS = Path(__file__).parents[1] / "build" / "kernel-headers"
"""Where docs/benchmarks.md has Debian's kernel headers unpacked for BCC."""

OURS, THEIRS = "pytest-bpf, cached", "BCC"


def ours() -> Laps:
    """Find the object in the cache, open and load it; unloading it is not timed."""
    laps = Laps()
    with Loader() as loader, laps.time("load"):
        loader.load(PROGRAMS / "passed.bpf.c")
    return laps


class BccError(Exception):
    """Why BCC cannot be measured here."""


@contextmanager
def bcc() -> Iterator[Callable[[], Laps]]:
    """Yield what compiles and loads by BCC, once a call; raise `BccError` when there is none."""
    environment = dict(os.environ)
    if not Path("/lib/modules", os.uname().release, "build").exists() and HEADERS.exists():
        environment.setdefault("BCC_KERNEL_SOURCE", str(HEADERS))
    command = (SYSTEM_PYTHON, Path(__file__).with_name("bcc_child.py"), PROGRAMS / "passed.bcc.c")
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
    except OSError as error:
        raise BccError(f"{SYSTEM_PYTHON}: {error.strerror}") from None

    def compile_and_load() -> Laps:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write("\n")
        with suppress(BrokenPipeError):
            child.stdin.flush()
        if said := child.stdout.readline():
            return Laps(load=float(said))
        raise BccError(child.stderr.read().strip().rpartition("\n")[2] or "it ended")

    try:
        yield compile_and_load
    finally:
        child.kill()
        child.communicate()


def measure(rounds: int = ROUNDS) -> Report:
    """Measure; without BCC, only our side."""
    report = Report("A load from the cache, ms", ("way", "load"))
    ours()
    try:
        with bcc() as compile_and_load:
            measured = take_turns({OURS: ours, THEIRS: compile_and_load}, rounds)
    except BccError as error:
        report.remarks.append(
            f"Not compared with BCC: {error}. It needs python3-bpfcc and kernel headers: "
            "see docs/benchmarks.md."
        )
        measured = take_turns({OURS: ours}, rounds)
    times = {way: [laps["load"] for laps in runs] for way, runs in measured.items()}
    report.rows += [(way, spread(Spread.of(taken))) for way, taken in times.items()]
    if THEIRS in times:
        faster = ratio(times[THEIRS], times[OURS])
        report.remarks += [
            f"{estimate(faster)} times as fast as BCC.",
            goal("at least 20 times as fast", faster, least=20),
        ]
    return report


if __name__ == "__main__":
    print(measure().markdown())

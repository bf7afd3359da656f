"""End sessions at random moments, and see what is left: ``python -m benchmarks.endings``.

Each session compiles, and makes namespaces, a cgroup, pins and processes. After Ctrl-C, SIGTERM and
SIGHUP nothing may be left; what SIGKILL leaves, the next session removes. ``--machines N`` kills N
sessions in virtual machines too.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_bpf.cache import open_cache
from pytest_bpf.cgroup.cgroupfs import hierarchy
from pytest_bpf.kernel.sys.mountinfo import mounts
from pytest_bpf.kernel.sys.names import is_stale
from pytest_bpf.netns.places import sweep

SESSION = '''
import subprocess

import pytest

PROGRAM = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.mark.parametrize("number", range(1000))
def test_everything(bpf, bpf_netns_pair, bpf_cgroup, bpf_pins, number):
    left, right = bpf_netns_pair
    obj = bpf.load(PROGRAM)
    obj.programs["pass"].attach(right.iface)
    for place in (bpf_cgroup, left):
        place.popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    (bpf_pins / "folder").mkdir()
'''

MARK = "PYTEST_BPF_ENDINGS"
"""The variable by which the processes of a session are known, whoever their parent is."""

LATEST = 4.0
"""Seconds after its start, or after its first test, within which a session is ended."""

AT_TESTS = 0.75
"""The share of sessions that are ended at their tests, however long they take to start."""

BEGINNING = 600.0
"""Seconds within which the first test of a session passes; a machine may be saved before."""

PATIENCE = 60.0
"""Seconds within which a session must have ended."""

MOST_SAID = 8000
"""Characters that are shown of what an endless session said."""


@dataclass
class Tally:
    """How many sessions were ended by a signal, and what they left."""

    sessions: int = 0
    leftovers: list[str] = field(default_factory=list)
    seconds: float = 0.0
    endless: list[str] = field(default_factory=list)
    """What the sessions said that did not end, with where each of their threads was."""


def traces(mark: str) -> list[str]:
    """Return what ended sessions left: cgroups, pins, folders, and processes with this mark."""
    places = [*hierarchy().path.rglob("pytest-bpf-*")]
    for folder in (Path("/run"), Path(tempfile.gettempdir()), *(m.path for m in mounts("bpf"))):
        with suppress(OSError):
            places += folder.glob("pytest-bpf-[0-9]*-*")
    stale = [place for place in places if is_stale(place.name)]
    workspaces = (open_cache().folder / "tmp").glob("[0-9]*-*")
    stale += [w for w in workspaces if not Path("/proc", w.name.partition("-")[0]).exists()]
    return [*map(str, stale), *(f"process {pid}" for pid in _marked(mark))]


def _marked(mark: str) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    pids.append(int(entry.name))
    return pids


def _heed_signals() -> None:
    """Undo what nohup and background jobs of a shell have their children ignore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def end_one(
    folder: Path, number: signal.Signals, mark: str, options: list[str]
) -> tuple[float, str]:
    """Start a session, end it at a random moment, and return how many seconds the end took.

    With that comes what a session said that did not end.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-v", "-x", "-p", "no:cacheprovider", *options],
            cwd=folder,
            env=os.environ | {MARK: mark, "PYTHONFAULTHANDLER": "1"},
            stdout=said,
            stderr=said,
            preexec_fn=_heed_signals,  # noqa: PLW1509
        )
        if random.random() < AT_TESTS:
            _await_tests(process, said.fileno())
        with suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0.2, LATEST))
        if process.poll() is not None:
            said.seek(0)
            raise RuntimeError(f"the session ended by itself:\n{said.read()[-MOST_SAID:]}")
        start = time.monotonic()
        process.send_signal(number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it says where it is
            process.wait()
            said.seek(0)
            return PATIENCE, said.read()[-MOST_SAID:]
        return time.monotonic() - start, ""


def _await_tests(process: subprocess.Popen[bytes], said: int) -> None:
    """Wait until a session says that a test passed, or ends."""
    deadline = time.monotonic() + BEGINNING
    while b"PASSED" not in os.pread(said, 1 << 20, 0) and time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            return


def run(folder: Path, number: signal.Signals, count: int, options: list[str]) -> Tally:
    """End ``count`` sessions by a signal, one after another."""
    tally = Tally()
    before = set(traces(""))
    for index in range(count):
        mark = f"{os.getpid()}-{number.name}-{index}"
        seconds, said = end_one(folder, number, mark, options)
        tally.seconds = max(tally.seconds, seconds)
        tally.sessions += 1
        tally.endless += [said] if seconds == PATIENCE else []
        if number is signal.SIGKILL:
            sweep()
        deadline = time.monotonic() + 5  # what dies with a process dies a moment after it
        while (left := sorted(set(traces(mark)) - before)) and time.monotonic() < deadline:
            time.sleep(0.05)
        tally.leftovers += left
        before |= set(left)
    return tally


def main() -> int:
    """End sessions as the command line says; return 1 when one left something or did not end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endings", description=__doc__)
    parser.add_argument("--interrupts", type=int, default=10, help="by Ctrl-C (%(default)s)")
    parser.add_argument("--terminations", type=int, default=5, help="by SIGTERM (%(default)s)")
    parser.add_argument("--hangups", type=int, default=2, help="by SIGHUP (%(default)s)")
    parser.add_argument("--kills", type=int, default=5, help="by SIGKILL (%(default)s)")
    parser.add_argument("--machines", type=int, default=0, help="killed in machines (%(default)s)")
    chosen = parser.parse_args()
    plan = [
        (signal.SIGINT, chosen.interrupts, []),
        (signal.SIGTERM, chosen.terminations, []),
        (signal.SIGHUP, chosen.hangups, []),
        (signal.SIGKILL, chosen.kills, []),
        (signal.SIGKILL, chosen.machines, ["--bpf-kernel", "debian"]),
    ]
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_everything.py").write_text(SESSION)
        for number, count, options in plan:
            tally = run(Path(folder), number, count, options)
            faults += len(tally.leftovers) + len(tally.endless)
            print(
                f"{number.name}{' in machines' if options else ''}: {tally.sessions} sessions, "
                f"{len(tally.leftovers)} things left, {len(tally.endless)} did not end, "
                f"the longest end {tally.seconds:.1f} s",
                *tally.leftovers,
                *tally.endless,
                sep="\n  ",
            )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""Consumers of events side by side: each in its own process, with a buffer of its own.

The programs and the buffers are the same for all, and loaded by us: what is compared is reading.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.event_peers import PAGES
from benchmarks.load_cached import HEADERS, SYSTEM_PYTHON
from pytest_bpf.kernel.sys.perf_event import online_cpus
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_bpf.objects import Object

PROGRAMS = Path(__file__).with_name("programs")
PEERS = Path(__file__).with_name("event_peers.py")
BUILD = Path(__file__).parents[1] / "build"

OURS, TYPED = "pytest-bpf, arrays", "pytest-bpf, objects"
C, CTYPES = "libbpf, C", "libbpf, callback by ctypes"
BCC, PYLIBBPF = "BCC, callback and cast", "pylibbpf, callback"

PRIORITY = -15
"""The niceness of writer and readers."""

GROUP = Path("/proc/self/autogroup")

Kind = Literal["ring", "perf"]


class AbsentError(Exception):
    """Why a peer cannot be measured here."""


@dataclass
class Way:
    """One consumer: its object, whose programs put out events, and the process that reads them."""

    kind: Kind
    obj: Object
    process: subprocess.Popen[str]

    def put(self, count: int) -> tuple[int, int]:
        """Put out ``count`` events; return how many found room, and the sum of their numbers."""
        before = self.obj.globals["next"]
        self.obj.programs[f"fill_{self.kind}"].test_run(context=(count,))
        after = self.obj.globals["next"]
        return after - before, (after - before) * (before + after - 1) // 2

    def end(self) -> None:
        """Put out the event that is the last; with the buffer full, as soon as it is not."""
        while self.obj.programs[f"end_{self.kind}"].test_run().retval:
            pass

    def tell(self, what: Literal["drain", "live"]) -> None:
        """Let it read: what there is, or what comes until the last."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def answer(self) -> tuple[int, int, int]:
        """Return the CPU time in ns, how many events it saw, and the sum of their numbers."""
        assert self.process.stdout is not None
        ns, events, total = map(int, self.process.stdout.readline().split())
        return ns, events, total


@contextmanager
def ways(kind: Kind) -> Iterator[tuple[dict[str, Way], list[str]]]:
    """Yield the ways that there are, and why the others are not."""
    found: dict[str, Way] = {}
    absent = []
    with ExitStack() as stack, first(), _own_cpu():
        for name, command in _commands(stack).items():
            try:
                found[name] = stack.enter_context(_started(kind, command))
            except (AbsentError, OSError) as error:
                absent.append(f"{name} ({error})")
        yield found, absent


@contextmanager
def _own_cpu() -> Iterator[None]:
    """Keep the writer on the first CPU; readers have the last."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(online_cpus())})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def first() -> Iterator[None]:
    """Go before others on a busy machine, with all that is started meanwhile.

    Where each session has a scheduling group of its own, the group has to go before others too.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    with suppress(OSError):
        GROUP.write_text(str(PRIORITY), encoding="ascii")
    try:
        yield
    finally:
        with suppress(OSError):
            GROUP.write_text("0", encoding="ascii")
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _commands(stack: ExitStack) -> dict[str, Sequence[str]]:
    peers = str(PEERS)
    with_ours = (sys.executable, peers)
    return {
        OURS: (*with_ours, "ours"),
        TYPED: (*with_ours, "ours_typed"),
        C: (stack.enter_context(_c_consumer()),),
        CTYPES: (*with_ours, "ctypes"),
        BCC: (SYSTEM_PYTHON, peers, "bcc"),
        PYLIBBPF: (str(BUILD / "peers/bin/python"), peers, "pylibbpf"),
    }


@contextmanager
def _c_consumer() -> Iterator[str]:
    """Compile the consumer in C against libbpf; a path to nothing where it cannot be."""
    folder = BUILD / f"event_consumer.{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        source, made = PROGRAMS / "event_consumer.c", folder / "event_consumer"
        compiler = shutil.which("gcc") or shutil.which("clang") or "cc"
        command = (compiler, "-O2", "-o", str(made), str(source), "-lbpf")
        subprocess.run(command, capture_output=True, check=False)
        yield str(made)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _started(kind: Kind, command: Sequence[str]) -> Iterator[Way]:
    environment = dict(os.environ)
    if not Path("/lib/modules", os.uname().release, "build").exists() and HEADERS.exists():
        environment.setdefault("BCC_KERNEL_SOURCE", str(HEADERS))
    with Loader() as loader:
        source = PROGRAMS / "events.bpf.c"
        obj = loader.load(source)
        fd = obj.maps[kind].fd
        last = str(PAGES) if len(command) == 1 else str(loader.compile(source).object)
        process = subprocess.Popen(
            (*command, kind, str(fd), last),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(fd,),
            env=environment,
            text=True,
        )
        try:
            os.sched_setaffinity(process.pid, {max(online_cpus())})
            assert process.stdout is not None
            assert process.stderr is not None
            if process.stdout.readline() != "ready\n":
                raise AbsentError(process.stderr.read().strip().rpartition("\n")[2] or "it ended")
            yield Way(kind, obj, process)
        finally:
            process.kill()
            process.communicate()

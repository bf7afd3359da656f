"""A running agent: what it holds, what it printed, how it ended."""

from __future__ import annotations

import os
import select
import signal as signals
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.agents.cost import cost
from pytest_bpf.agents.counting import Asked
from pytest_bpf.agents.held import Held
from pytest_bpf.agents.load import Load
from pytest_bpf.agents.output import Output
from pytest_bpf.errors import AgentError
from pytest_bpf.kernel import ids
from pytest_bpf.objects.inventory import Inventory, asleep, inventory
from pytest_bpf.objects.names import Named

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import psutil

    from pytest_bpf.agents.cost import AgentCost
    from pytest_bpf.agents.readiness import Readiness
    from pytest_bpf.kernel.ids import Kind
    from pytest_bpf.objects import Link, Map, Program
    from pytest_bpf.places import Cgroup

LOOK = 0.01
"""Seconds between two looks at what it holds; its death and its output are seen at once."""

STRAGGLING = 0.5
"""Seconds that its other processes may take to end after the first."""

UNLOADING = 2.0
"""Seconds the kernel may take to let go of what an agent held."""


class Agent:
    """A process, with its children, that has programs in the kernel.

    ``programs``, ``maps`` and ``links`` are by name what it held once it was attached; they are
    read and measured here, and stay the agent's. ``name`` is its command's, ``before`` what was in
    the kernel before it started.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        output: int,
        cgroup: Cgroup,
        *,
        guard: subprocess.Popen[bytes],
        before: Mapping[Kind, set[int]],
        measured: Callable[[AgentCost], object] = lambda _: None,
        stop_signal: int = signals.SIGTERM,
        grace: float = 5.0,
        keeps: bool = False,
    ) -> None:
        self.name = name
        self.pid = process.pid
        self.cgroup = cgroup
        self.printed = Output(output)
        self._process, self._guard = process, guard
        self._measured = measured
        self._stop_signal, self._grace, self._keeps = stop_signal, grace, keeps
        self._before = before
        self._seen: dict[Kind, set[int]] = {"prog": set(), "map": set()}
        self._expected_end = False
        self._ended = False
        self._take(Inventory())

    # -- while it runs -------------------------------------------------------------------------

    @property
    def output(self) -> str:
        """What it printed so far, on both of its streams."""
        return self.printed.text

    @property
    def running(self) -> bool:
        """Whether its first process runs."""
        return self._process.poll() is None

    @property
    def processes(self) -> list[psutil.Process]:
        """Its processes, the first one and its children, as `psutil.Process`."""
        import psutil  # noqa: PLC0415 (only who looks at processes needs it)

        found = []
        for pid in self.pids():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def pids(self) -> list[int]:
        """Return the ids of its processes: all that are in its cgroup."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.cgroup.path):
            with suppress(OSError), open(f"{folder}/cgroup.procs", encoding="ascii") as lines:  # noqa: PTH123
                found.extend(map(int, lines))
        return [pid for pid in found if pid != os.getpid()]

    def cpu_seconds(self) -> float:
        """Return the CPU time of its processes, those too that ended (``cpu.stat``)."""
        for line in (self.cgroup.path / "cpu.stat").read_text().splitlines():
            if line.startswith("usage_usec"):
                return int(line.split()[1]) / 1e6
        return 0.0

    def wait_attached(self, readiness: Readiness) -> None:
        """Wait until its programs are attached; raises `AgentError`."""
        within = f"within {readiness.timeout:g} s"
        deadline = time.monotonic() + readiness.timeout
        if readiness.printed is not None and not self._until_printed(readiness.printed, deadline):
            self._not_ready(f"did not print what matches {readiness.printed!r} {within}")
        last, since = Inventory(), time.monotonic()
        while True:
            pids = self.pids()
            now = self._look(pids)
            if now != last or not asleep(pids):
                last, since = now, time.monotonic()
            if readiness.reached(now, time.monotonic() - since):
                break
            self._alive("attached its programs")
            if time.monotonic() > deadline:
                self._not_ready(f"{readiness.lacking(now)} {within}")
            self._rest(LOOK)
        self._take(now)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until it ends by itself, and return its exit status (minus a signal's number).

        Raises `AgentError` when it does not.
        """
        self._expected_end = True
        if self._rest(timeout):
            return self._process.wait()
        raise AgentError(
            f"agent {self.name!r} did not end by itself within {timeout:g} s{self.printed.tail}",
            self.output,
        )

    def under(
        self,
        load: Callable[[int], object],
        *,
        rate: float,
        seconds: float = 1.0,
        delivered: Callable[[], float] | None = None,
        lost: str | None = None,
        samples: int = 200,
    ) -> AgentCost:
        """Return what it costs while ``load`` makes ``rate`` events a second for ``seconds``.

        ``load(count)`` makes so many events, as those of `Syscalls` do. After the load, ``samples``
        single events tell the latency, in half a second at most. ``delivered()`` returns how many
        events have arrived so far, where somebody knows; else what was lost is told by the
        kernel's counts, the room the events took in its buffers, and its own words: ``lost`` is a
        regular expression with the number as its group, if they are not those of most.

        Raises `AgentError` when it is dead, or none of its programs runs under the load.
        """
        self._alive("was put under load")
        found = cost(self, Asked(Load(load, rate, seconds), delivered, lost, samples))
        self._alive("had stood the load")
        self._measured(found)
        return found

    # -- its end -------------------------------------------------------------------------------

    def stop(self) -> None:
        """End it: its signal, a grace, then SIGKILL; a second time does nothing.

        Raises `AgentError` when it was dead before, ignored the signal, or left processes, or
        programs or maps in the kernel (unless it ``keeps`` them).
        """
        if self._ended:
            return
        self._ended = True
        faults = list(self._end())
        if faults:
            raise AgentError(
                f"agent {self.name!r} {'; it '.join(faults)}{self.printed.tail}", self.output
            )

    def _end(self) -> Iterator[str]:
        dead = self._process.poll()
        with ExitStack() as stack:
            stack.callback(self.printed.close)
            stack.callback(self._process.wait)
            stack.callback(self._guard.communicate)
            stack.callback(self.cgroup.close)
            if dead is None:
                self._look(self.pids())
                if not self._ends_by_signal():
                    name = signals.Signals(self._stop_signal).name
                    yield f"ignored {name} for {self._grace:g} s and was killed"
            elif not self._expected_end:
                yield f"died before the test ended: {_status(dead)}"
            if not self.running and (left := self._stragglers()):
                named = ", ".join(f"{pid} ({_comm(pid)})" for pid in left)
                yield f"left processes running, which were killed: {named}"
            self._held.close()
        if not self._keeps:
            yield from self._left_behind()

    def _ends_by_signal(self) -> bool:
        """Send the signal and wait; once more when half of the grace is over.

        bpftrace misses one that finds it just returning from its wait.
        """
        for _ in range(2):
            self._process.send_signal(self._stop_signal)
            if self._rest(self._grace / 2):
                return True
        return False

    def _stragglers(self) -> list[int]:
        """Return its processes that outlive the first one."""
        deadline = time.monotonic() + STRAGGLING
        while (left := self.pids()) and time.monotonic() < deadline:
            time.sleep(LOOK)
        return left

    def _left_behind(self) -> Iterator[str]:
        """Say what is in the kernel still, of all that it was ever seen to hold."""
        deadline = time.monotonic() + UNLOADING
        own = {kind: numbers - self._before[kind] for kind, numbers in self._seen.items()}
        while left := [(kind, n) for kind in own for n in sorted(own[kind]) if ids.exists(kind, n)]:
            if time.monotonic() > deadline:
                named = ", ".join(
                    f"{'program' if kind == 'prog' else kind} {n}" for kind, n in left
                )
                yield f"left {named} in the kernel: pinned, or still attached (keeps=True lets it)"
                return
            time.sleep(LOOK)

    # -- inside --------------------------------------------------------------------------------

    def _look(self, pids: Iterable[int]) -> Inventory:
        now = inventory(pids)
        self._seen["prog"] |= now.programs
        self._seen["map"] |= now.maps
        return now

    def _take(self, now: Inventory) -> None:
        """Open what it holds, to be read here."""
        self._held = Held(now)
        self.programs: Mapping[str, Program] = Named("program", self.name, self._held.programs)
        self.maps: Mapping[str, Map] = Named("map", self.name, self._held.maps)
        self.links: Mapping[str, Link] = Named("link", self.name, self._held.links)

    def _alive(self, before: str) -> None:
        status = self._process.poll()
        if status is not None:
            self._expected_end = True  # it is said here, once
            raise AgentError(
                f"agent {self.name!r} ended before it {before}: {_status(status)}"
                f"{self._rest_of_output()}",
                self.output,
            )

    def _not_ready(self, why: str) -> None:
        raise AgentError(f"agent {self.name!r} {why}{self.printed.tail}", self.output)

    def _rest_of_output(self) -> str:
        self.printed.close()
        return self.printed.tail

    def _until_printed(self, pattern: str, deadline: float) -> bool:
        while not self.printed.wait_for(pattern, min(LOOK * 10, deadline - time.monotonic())):
            self._alive(f"printed what matches {pattern!r}")
            if time.monotonic() > deadline:
                return False
        return True

    def _rest(self, seconds: float) -> bool:
        """Wait so long, or until its first process ends; say whether it did."""
        if self._process.poll() is not None:
            return True
        handle = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(seconds * 1000)
        finally:
            os.close(handle)
        return self._process.poll() is not None

    def __repr__(self) -> str:
        state = "running" if self.running else _status(self._process.returncode)
        return f"<Agent {self.name} (pid {self.pid}, {state}, {len(self.programs)} programs)>"


def _status(code: int) -> str:
    """Return how a process ended, in words."""
    return f"exit status {code}" if code >= 0 else f"killed by {signals.Signals(-code).name}"


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "gone since"

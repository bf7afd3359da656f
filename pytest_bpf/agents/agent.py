"""A running agent: its processes, its programs and maps, what it costs, its end."""

from __future__ import annotations

import signal as signals
import time
from typing import TYPE_CHECKING

from pytest_bpf.agents.cost import cost
from pytest_bpf.agents.load import Load
from pytest_bpf.agents.measurement import Conditions
from pytest_bpf.agents.objects import AgentObjects, History
from pytest_bpf.agents.process import POLL_INTERVAL
from pytest_bpf.errors import AgentError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.objects.names import NameMapping
from pytest_bpf.objects.search.inventory import Inventory, is_asleep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import psutil

    from pytest_bpf.agents.cost import AgentCost
    from pytest_bpf.agents.process import AgentProcess
    from pytest_bpf.agents.readiness import Readiness
    from pytest_bpf.kernel.sys.ids import Kind
    from pytest_bpf.objects import Link, Map, Program


@checked_methods
class Agent:
    """A command, with its children, that has programs in the kernel.

    ``programs``, ``maps`` and ``links`` are by name what it had open once it was attached; they
    are read and measured here, and stay the agent's. ``name`` is its command's, ``before`` what
    was in the kernel before it started, and ``record`` is called with each cost.
    """

    def __init__(
        self,
        name: str,
        process: AgentProcess,
        *,
        before: Mapping[Kind, set[int]],
        record: Callable[[AgentCost], object] = lambda _: None,
        stop_signal: int = signals.SIGTERM,
        grace: float = 5.0,
        keeps: bool = False,
    ) -> None:
        self.name = name
        self.pid = process.pid
        self.cgroup = process.cgroup
        self.printed = process.log
        self._process = process
        self._record = record
        self._stop_signal, self._grace, self._keeps = stop_signal, grace, keeps
        self._history = History(before)
        self._may_end = False
        self._stopped = False
        self._open(Inventory())

    # -- while it runs -------------------------------------------------------------------------

    @property
    def output(self) -> str:
        """What it printed so far, on both of its streams."""
        return self.printed.text

    @property
    def running(self) -> bool:
        """Whether its first process runs."""
        return self._process.running

    @property
    def processes(self) -> list[psutil.Process]:
        """Its processes, the first one and its children, as `psutil.Process`."""
        return self._process.processes

    def pids(self) -> list[int]:
        """Return the ids of its processes: all that are in its cgroup."""
        return self._process.pids()

    def cpu_seconds(self) -> float:
        """Return the CPU time of its processes, also of those that ended (``cpu.stat``)."""
        return self._process.cpu_seconds()

    def wait_attached(self, readiness: Readiness) -> None:
        """Wait until its programs are attached; raises `AgentError`."""
        within = f"within {readiness.timeout:g} s"
        deadline = time.monotonic() + readiness.timeout
        if readiness.printed is not None:
            self.wait_output(readiness.printed, readiness.timeout)
        last, since = Inventory(), time.monotonic()
        while True:
            pids = self.pids()
            now = self._history.look(pids)
            if now != last or not is_asleep(pids):
                last, since = now, time.monotonic()
            if readiness.holds(now, time.monotonic() - since):
                break
            self._require_running("attached its programs")
            if time.monotonic() > deadline:
                raise self._error(f"{readiness.shortfall(now)} {within}")
            self._process.wait(POLL_INTERVAL)
        self._open(now)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until it ends by itself, and return its exit status (minus a signal's number).

        Raises `AgentError` when it does not.
        """
        self._may_end = True
        code = self._process.wait(timeout)
        if code is None:
            raise self._error(f"did not end by itself within {timeout:g} s")
        return code

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

        ``load(count)`` makes ``count`` events, as those of `Syscalls` do. After the load,
        ``samples`` single events give the latency; they take half a second at most.
        ``delivered()`` returns how many events have arrived so far. Without it, the loss is taken
        from the kernel's counts, from how full the agent's buffers got, and from what it printed:
        ``lost`` is a regular expression with the number as its group, for an agent that says it
        in words of its own.

        Raises `AgentError` when it is dead, or none of its programs runs under the load.
        """
        self._require_running("was put under load")
        result = cost(self, Conditions(Load(load, rate, seconds), delivered, lost, samples))
        self._require_running("had stood the load")
        self._record(result)
        return result

    # -- its end -------------------------------------------------------------------------------

    def stop(self) -> None:
        """End it: its signal, a grace period, then SIGKILL; a second call does nothing.

        Raises `AgentError` when it was dead before, ignored the signal, or left processes, or
        programs or maps in the kernel (unless it ``keeps`` them).
        """
        if self._stopped:
            return
        self._stopped = True
        faults = []
        status = self._process.end_status
        if status is None:
            self._history.look(self.pids())
        elif not self._may_end:
            faults.append(f"died before the test ended: {status}")
        try:
            faults += self._process.end(self._stop_signal, self._grace)
        finally:
            self._objects.close()
        if not self._keeps and (leftovers := self._history.leftovers()):
            faults.append(
                f"left {', '.join(leftovers)} in the kernel: pinned, or still attached "
                "(keeps=True lets it)"
            )
        if faults:
            raise self._error("; it ".join(faults))

    # -- inside --------------------------------------------------------------------------------

    def _open(self, now: Inventory) -> None:
        """Open what it has, to be read here."""
        objects = self._objects = AgentObjects(now)
        self.programs: Mapping[str, Program] = NameMapping("program", self.name, objects.programs)
        self.maps: Mapping[str, Map] = NameMapping("map", self.name, objects.maps)
        self.links: Mapping[str, Link] = NameMapping("link", self.name, objects.links)

    def wait_output(self, pattern: str, timeout: float = 30.0) -> None:
        """Wait until its output has what the regular expression matches.

        Raises `AgentError` when it ends before that, or does not print it in time.
        """
        if not self._wait_printed(pattern, time.monotonic() + timeout):
            raise self._error(f"did not print what matches {pattern!r} within {timeout:g} s")

    def _require_running(self, step: str) -> None:
        """Raise `AgentError` when it ended before ``step``."""
        status = self._process.end_status
        if status is not None:
            self._may_end = True  # it is said here, once
            self.printed.close()
            raise self._error(f"ended before it {step}: {status}")

    def _error(self, sentence: str) -> AgentError:
        return AgentError(f"agent {self.name!r} {sentence}{self.printed.tail}", self.output)

    def _wait_printed(self, pattern: str, deadline: float) -> bool:
        while not self.printed.wait_for(pattern, min(0.1, deadline - time.monotonic())):
            self._require_running(f"printed what matches {pattern!r}")
            if time.monotonic() > deadline:
                return False
        return True

    def __repr__(self) -> str:
        state = self._process.end_status or "running"
        return f"<Agent {self.name} (pid {self.pid}, {state}, {len(self.programs)} programs)>"

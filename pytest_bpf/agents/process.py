"""The processes of an agent: a command and its children, in a cgroup of their own."""

from __future__ import annotations

import os
import signal as signals
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.agents.log import Log
from pytest_bpf.kernel.sys.processes import ends

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    import psutil

    from pytest_bpf.cgroup import Cgroup

POLL_INTERVAL = 0.01
"""Seconds between two looks at processes; the end of the first one is seen at once."""

STRAGGLER_TIMEOUT = 0.5
"""Seconds that the other processes may take to end after the first one."""


class AgentProcess:
    """A command and its children: what they print, their CPU time, and their end.

    ``output`` is the descriptor of the pipe to which they print. ``guard`` kills them when this
    process is gone; None is for those whose guard is that of a cgroup above.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        output: int,
        cgroup: Cgroup,
        guard: subprocess.Popen[bytes] | None,
    ) -> None:
        self.pid = process.pid
        self.cgroup = cgroup
        self.log = Log(output)
        self._process, self._guard = process, guard

    @property
    def running(self) -> bool:
        """Whether the first process runs."""
        return self._process.poll() is None

    @property
    def end_status(self) -> str | None:
        """How the first process ended, in words; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"exit status {code}" if code >= 0 else f"killed by {signals.Signals(-code).name}"

    @property
    def processes(self) -> list[psutil.Process]:
        """The first process and its children, as `psutil.Process`."""
        import psutil  # noqa: PLC0415 (only who looks at processes needs it)

        processes = []
        for pid in self.pids():
            with suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(pid))
        return processes

    def pids(self) -> list[int]:
        """Return the ids of all processes in the cgroup."""
        pids: list[int] = []
        for folder, _, _ in os.walk(self.cgroup.path):
            with suppress(OSError), open(f"{folder}/cgroup.procs", encoding="ascii") as lines:  # noqa: PTH123
                pids.extend(map(int, lines))
        return [pid for pid in pids if pid != os.getpid()]

    def cpu_seconds(self) -> float:
        """Return the CPU time of all processes, also of those that ended (``cpu.stat``)."""
        lines = (self.cgroup.path / "cpu.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6

    def wait(self, seconds: float) -> int | None:
        """Wait at most ``seconds`` for the end of the first process; return its exit status."""
        if self._process.poll() is None:
            handle = os.pidfd_open(self.pid)
            try:
                ends(handle, seconds)
            finally:
                os.close(handle)
        return self._process.poll()

    def end(self, stop_signal: int, grace: float) -> Iterator[str]:
        """Send the signal, wait ``grace`` seconds, kill what is left; yield each fault."""
        with ExitStack() as stack:
            stack.callback(self.log.close)
            stack.callback(self._process.wait)
            if self._guard is not None:
                stack.callback(self._guard.communicate)
            stack.callback(self.cgroup.close)
            if self.running and not self._ends_by(stop_signal, grace):
                name = signals.Signals(stop_signal).name
                yield f"ignored {name} for {grace:g} s and was killed"
            if not self.running and (stragglers := self._stragglers()):
                names = ", ".join(f"{pid} ({_comm(pid)})" for pid in stragglers)
                yield f"left processes running, which were killed: {names}"

    def _ends_by(self, stop_signal: int, grace: float) -> bool:
        """Send the signal and wait; send it again when half of the grace is over.

        bpftrace misses a signal that comes while it returns from its wait.
        """
        for _ in range(2):
            self._process.send_signal(stop_signal)
            if self.wait(grace / 2) is not None:
                return True
        return False

    def _stragglers(self) -> list[int]:
        """Return the processes that outlive the first one."""
        deadline = time.monotonic() + STRAGGLER_TIMEOUT
        while (pids := self.pids()) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
        return pids


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "gone since"

"""The workers' machines: made ready while pytest starts, so that each waits for its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys import libc
from pytest_bpf.vm import join

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from pytest_bpf.plugin.matrix.choices import KernelChoice


class WaitingMachine:
    """A process that makes a machine ready, and then waits for `join`; ``log`` has its errors."""

    def __init__(self, command: Sequence[str], path: Path) -> None:
        self.log = path.with_suffix(".log")
        self._place = path.with_suffix(".socket")
        self._process = subprocess.Popen(
            [*command, "--wait-at", str(self._place), str(self.log)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=partial(libc.death_signal(), signal.SIGTERM),  # noqa: PLW1509 (one call)
            start_new_session=True,  # Ctrl-C reaches it once, by `end`: it has to clean up after it
        )

    @property
    def joining(self) -> list[str]:
        """What goes in front of a command that is to run in this machine."""
        return [sys.executable, "-I", "-S", join.__file__, str(self._place)]

    def wait_saved(self) -> str:
        """Wait for the saved machine, the progress on the terminal; return why there is none."""
        assert self._process.stdout
        assert self._process.stderr
        output = b""
        while data := os.read(self._process.stderr.fileno(), 4096):
            output += data
            sys.stderr.buffer.write(data)
            sys.stderr.flush()
        if self._process.stdout.read():
            return ""
        status = self._process.wait()
        last = output.decode(errors="replace").strip().rpartition("pytest-bpf: ")[2]
        return last or f"exit status {status}"

    def end(self) -> None:
        """End it, if it still runs, as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)  # SIGINT is ignored where ours was (nohup)
        self._process.communicate()


class WaitingMachines:
    """The machines of a session that wait; their files are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._machines: dict[str, list[WaitingMachine]] = {}
        self._all: list[WaitingMachine] = []
        self._counts: dict[str, tuple[KernelChoice, int]] = {}

    def begin(self, kernel: KernelChoice, count: int) -> None:
        """Start one machine with a kernel, which may have to be saved; ``count`` are wanted."""
        self._counts[kernel.place] = kernel, count
        self._start(kernel)

    def finish(self, config: pytest.Config) -> dict[str, str]:
        """Wait until all kernels' machines are saved, then start the others of each.

        Returns why there is no machine with a kernel, by the kernel's place.
        """
        failures = {}
        with ExitStack() as stack:
            if capture := config.pluginmanager.getplugin("capturemanager"):
                stack.enter_context(capture.global_and_fixture_disabled())
            for place, (kernel, count) in self._counts.items():
                if reason := self._machines[place][0].wait_saved():
                    failures[place] = reason
                    continue
                for _ in range(count - 1):
                    self._start(kernel)
        return failures

    def take(self, place: str) -> WaitingMachine | None:
        """Return a machine that waits for a worker, each once; None when there is no more."""
        waiting = self._machines.get(place)
        return waiting.pop(0) if waiting else None

    def end(self) -> None:
        """End those that still wait, and see the others end."""
        for machine in self._all:
            machine.end()

    def _start(self, kernel: KernelChoice) -> None:
        machine = WaitingMachine(kernel.command, self.folder / f"waiting-{len(self._all)}")
        self._all.append(machine)
        self._machines.setdefault(kernel.place, []).append(machine)

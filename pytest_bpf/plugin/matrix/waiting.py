"""The workers' machines: made ready while pytest starts, so that each waits for its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys import libc
from pytest_bpf.plugin.matrix import progress
from pytest_bpf.vm import join

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pytest

    from pytest_bpf.plugin.matrix.choices import KernelChoice

PATIENCE = 20.0
"""Seconds in which a machine that was told to end has ended."""

LAST_STEPS = 2.0
"""Seconds in which a machine ends whose worker has."""


class WaitingMachine:
    """A process that makes a machine ready, and then waits for `join`; ``log`` has its errors."""

    def __init__(self, command: Sequence[str], path: Path) -> None:
        self.log = path.with_suffix(".log")
        self._place = path.with_suffix(".socket")
        self._is_joined = False
        self._process = subprocess.Popen(
            [*command, "--wait-at", str(self._place), str(self.log)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=partial(_hear_the_end, libc.death_signal()),  # noqa: PLW1509 (system calls)
            start_new_session=True,  # Ctrl-C reaches it once, by `end`: it has to clean up after it
        )

    def join_command(self) -> list[str]:
        """Return what goes in front of the command that is to run in this machine."""
        self._is_joined = True
        return [sys.executable, "-I", "-S", join.__file__, str(self._place)]

    def wait_saved(self) -> str:
        """Wait for the saved machine, the progress on the terminal; return why there is none."""
        assert self._process.stdout
        assert self._process.stderr
        last = progress.show(iter(partial(os.read, self._process.stderr.fileno(), 4096), b""))
        if self._process.stdout.read():
            return ""
        return last or f"exit status {self._process.wait()}"

    def end(self) -> None:
        """End it, if it still runs, as Ctrl-C does; first let it end with the worker it had."""
        if self._is_joined:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_STEPS)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)  # SIGINT is ignored where ours was (nohup)
        try:
            _, said = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, said = self._process.communicate()
        progress.show([said or b""])


def _hear_the_end(die_with_parent: Callable[[int], object]) -> None:
    """Let SIGTERM end this process, whatever pytest does about it; it comes when pytest ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    die_with_parent(signal.SIGTERM)


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

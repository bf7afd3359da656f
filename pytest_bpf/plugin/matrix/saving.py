"""The machines' saved states: made while pytest starts, awaited before the workers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.kernel.sys import libc

if TYPE_CHECKING:
    from collections.abc import Sequence

SAVING = pytest.StashKey["dict[str, subprocess.Popen[bytes]]"]()
"""The process that sees to the state of each kernel, by the kernel's name."""


def begin(config: pytest.Config, name: str, command: Sequence[str]) -> None:
    """Start making the saved machine of a kernel, if there is none; ``command`` runs one."""
    process = subprocess.Popen(
        [*command, "--save"],
        stderr=subprocess.PIPE,
        preexec_fn=partial(libc.death_signal(), signal.SIGTERM),  # noqa: PLW1509 (one system call)
        start_new_session=True,  # Ctrl-C reaches it once, by `_end`: it has to clean up after it
    )
    config.add_cleanup(lambda: _end(process))
    config.stash.setdefault(SAVING, {})[name] = process


def finish(config: pytest.Config) -> dict[str, str]:
    """Wait until all are there, their progress on the terminal.

    Returns why there is no machine with a kernel, by the kernel's name.
    """
    failures = {}
    with ExitStack() as stack:
        if capture := config.pluginmanager.getplugin("capturemanager"):
            stack.enter_context(capture.global_and_fixture_disabled())
        for name, process in config.stash.get(SAVING, {}).items():
            assert process.stderr
            output = b""
            while data := os.read(process.stderr.fileno(), 4096):
                output += data
                sys.stderr.buffer.write(data)
                sys.stderr.flush()
            if process.wait():
                last = output.decode(errors="replace").strip().rpartition("pytest-bpf: ")[2]
                failures[name] = last
    return failures


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, if it still runs, as Ctrl-C does."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)  # SIGINT is ignored where ours was, as by nohup
    process.communicate()

"""What a session on another machine asks of this one, each in a thread of execnet's gateway here.

A channel first gives what is asked for, as plain values, and then takes the answer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_bpf.cache import forget_old, mark_used, open_cache
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys import libc
from pytest_bpf.kernels import limits, lookup
from pytest_bpf.vm import qemu

if TYPE_CHECKING:
    from execnet import Channel

UNUSED = 14 * 24 * 3600
"""Seconds after which a project that no session has sent again, or a log, is removed."""


def place(channel: Channel) -> None:
    """Answer where a project goes, by its name; those that nobody sends any more are removed."""
    folder = open_cache().path("projects", str(channel.receive()))
    folder.mkdir(mode=0o700, exist_ok=True)
    mark_used(folder)
    forget_old(folder.parent, UNUSED)
    channel.send(str(folder))


def find(channel: Channel) -> None:
    """Answer a kernel's name with its release, its limits, and the folder for machines' words."""
    channel.send(_found(str(channel.receive())))


def _found(choice: str) -> dict[str, Any]:
    try:
        qemu.program()
        kernel = lookup.find(choice)
        if kernel is None:
            return {"error": "'host' is no kernel of a machine; leave out kernel= for its own"}
        limits.require_possible(kernel)
        logs = open_cache().path("projects", "logs", "x").parent
        forget_old(logs, UNUSED)
    except BpfError as error:
        return {"error": str(error)}
    return {
        "release": kernel.release,
        "limits": limits.of(kernel),
        "choice": str(kernel.image),
        "logs": str(logs),
    }


def save(channel: Channel) -> None:
    """Make a machine's saved state, by the words of its command; answer with what is said, then 0.

    Another exit status than 0 says that there is none.
    """
    command = [sys.executable, "-m", "pytest_bpf.vm", *channel.receive(), "--save"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=partial(libc.death_signal(), signal.SIGTERM),  # noqa: PLW1509 (one system call)
    ) as process:
        assert process.stderr
        try:
            while data := os.read(process.stderr.fileno(), 4096):
                channel.send(data)
            channel.send(process.wait())
        except OSError:  # the one who asked is gone
            process.terminate()

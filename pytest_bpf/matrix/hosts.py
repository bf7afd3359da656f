"""Real hosts beside machines: ``ssh=HOST`` and ``socket=HOST:PORT``, as execnet reaches them.

A gateway to each host stays for the session, and starts the workers there. They run in that
host's folder, with that host's Python: only the words of the command line come from here.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.vm import NO_MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from execnet import XSpec
    from xdist.workermanage import WorkerController

WAYS = ("ssh=", "socket=")
"""What the name of a real host begins with; what follows are the words of an execnet spec."""


def address(choice: str) -> str:
    """Return the host's address, by which it is called.

    >>> address("ssh=me@pi//python=/srv/venv/bin/python")
    'me@pi'
    """
    return choice.partition("=")[2].partition("//")[0]


def gateway(choice: str, name: str) -> str:
    """Return the spec of the gateway that stays; the folder there is by default that of here."""
    folder = "" if "//chdir=" in choice else f"//chdir={Path.cwd()}"
    return f"id={_id(name)}//execmodel=thread//{choice}{folder}"


def worker(name: str, number: int) -> str:
    """Return the spec of a worker that this gateway starts."""
    return f"popen//via={_id(name)}//id={name}{f'.{number}' if number else ''}//bpf_kernel={name}"


def keep_path(spec: XSpec) -> None:
    """Have pytest-xdist leave the host's ``sys.path`` alone, as it does where nothing is shared."""
    spec.popen = None


def before_restart(node: WorkerController) -> None:
    """Let a worker be started again: there, or when the host is gone, here to say so."""
    spec = node.gateway.spec
    group = node.nodemanager.group
    spec.popen = True
    try:
        group[spec.via].newchannel()
    except OSError:
        reason = f"{NO_MACHINE}=the connection to {spec.bpf_kernel} has ended"
        spec.via, spec.python = None, shlex.join(["env", reason, sys.executable])
        group.terminate = _patient(group.terminate)


def _patient(terminate: Callable[[float | None], None]) -> Callable[[float | None], None]:
    """Return execnet's end of all gateways, that is not upset by a host that is gone already."""

    def end(timeout: float | None = None) -> None:
        with suppress(OSError):
            terminate(timeout)

    return end


def make_room(basetemp: str | None) -> None:
    """Make the folder in which pytest wants its temporary one: its path is the controller's."""
    if basetemp:
        os.makedirs(os.path.dirname(basetemp), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120


def _id(name: str) -> str:
    return f"{name}.host"

"""Other hosts: ``ssh=HOST`` and ``socket=HOST:PORT``, as execnet reaches them.

A gateway to each host stays for the session, and starts the workers there: on the host's own
kernel, or with ``kernel=NAME`` in machines on it.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError
from pytest_bpf.vm import NO_MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from execnet import XSpec
    from xdist.workermanage import WorkerController

LONGEST_NAME = 255
"""Characters of the name of a host: what DNS allows."""

WAYS = ("ssh=", "socket=")
"""What the name of another host begins with; what follows are the words of an execnet spec."""

ALIVE = "-o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ConnectTimeout=30"
"""For ssh: a host that is silent for half a minute is gone."""

READ = """
path, start = channel.receive()
with open(path, "rb") as file:
    file.seek(start)
    channel.send(file.read())
"""
"""Runs there: what a machine's command has said."""

READ_TIMEOUT = 30.0


@dataclass(frozen=True)
class Address:
    """How a host is reached: its ``name``, and the ``spec`` that execnet understands.

    ``chdir`` is the folder of the project there, empty when the project is sent.
    """

    name: str
    spec: str
    chdir: str

    @property
    def gateway_id(self) -> str:
        """The id of the gateway that stays."""
        return f"{self.name}.host"


@dataclass(frozen=True)
class Host:
    """A host that has been asked: its ``python``, and the ``folder`` in which tests run there.

    ``sent`` are the folders of the project here and there, None when it was there before. Of a
    host that ``is_alike`` this one has the architecture.
    """

    address: Address
    python: str
    folder: str = ""
    sent: tuple[str, str] | None = None
    is_alike: bool = True

    @property
    def gateway(self) -> str:
        """The spec of the gateway that stays."""
        folder = f"//chdir={self.folder}" if self.folder else ""
        return f"id={self.address.gateway_id}//execmodel=thread//{self.address.spec}{folder}"


def parse(choice: str) -> tuple[Address, str]:
    """Return the address of a host, and the kernel of its machines, or empty for its own.

    Raises `BpfError` for what names no host.

    >>> address, kernel = parse("ssh=me@pi//kernel=debian:6.12//chdir=/srv")
    >>> address.name, kernel, address.chdir
    ('me@pi', 'debian:6.12', '/srv')
    """
    from execnet import XSpec

    first, *words = choice.split("//")
    way, _, name = first.partition("=")
    name = name.rpartition(" ")[2]
    host, _, port = name.rpartition(":")
    if not name or "\0" in name or len(name) > LONGEST_NAME:
        shown = choice[:LONGEST_NAME]
        raise BpfError(f"{shown!r} names no host; write ssh=HOST or socket=HOST:PORT")
    if way == "socket" and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise BpfError(f"{choice!r}: a socket is socket=HOST:PORT, with a port from 1 to 65535")
    try:
        spec = XSpec(choice)
    except (AttributeError, ValueError, IndexError) as error:
        raise BpfError(f"{choice!r} is no specification of execnet: {error}") from None
    if spec.kernel is True or spec.kernel == "":
        raise BpfError(f"{choice!r}: which kernel? kernel=debian, kernel=debian:6.12, ...")
    words = [word for word in words if not word.startswith("kernel=")]
    if way == "ssh":
        first = f"ssh={ALIVE} {first.partition('=')[2]}"
        words += [] if spec.python else ["python=python3"]
    return Address(name, "//".join([first, *words]), spec.chdir or ""), str(spec.kernel or "")


def worker(name: str, place: str, number: int, host: Address | None) -> str:
    """Return the spec of a worker here, or one that a host's gateway starts."""
    via = f"via={host.gateway_id}//" if host else ""
    same = f"{f'.{number}' if number else ''}"
    return f"popen//{via}id={place}{same}//bpf_kernel={name}{at(place)}"


def at(place: str) -> str:
    """Return how the spec of a worker at a place ends."""
    return f"//bpf_place={place}"


def keep_path(spec: XSpec) -> None:
    """Have pytest-xdist leave the host's ``sys.path`` alone, as it does where nothing is shared."""
    spec.popen = None


def is_gone(node: WorkerController, host: Address) -> bool:
    """Say whether a worker's host does not answer any more; then the end of all is quiet.

    The end of its connection may be noticed later than that of the worker: it is asked.
    """
    group = node.nodemanager.group
    try:
        group[host.gateway_id].remote_exec("channel.send(1)").receive(READ_TIMEOUT)
    except lost():
        group.terminate = _patient(group.terminate)
        return True
    return False


def unless_gone(send: Callable[..., None]) -> Callable[..., None]:
    """Return what sends a worker its tests, and nothing to one that has just ended.

    pytest-xdist hears of that end next, and gives the tests to others.
    """

    def to_the_living(name: str, **kwargs: Any) -> None:
        with suppress(OSError):
            send(name, **kwargs)

    return to_the_living


def report_gone(spec: XSpec, host: Address) -> None:
    """Have a worker started here that says of each test left that the host is gone."""
    reason = f"{NO_MACHINE}=the connection to {host.name} has ended"
    spec.via, spec.python = None, shlex.join(["env", reason, sys.executable])


def read(node: WorkerController, host: Address, path: str, start: int) -> bytes:
    """Return a file of a host from a byte on; empty when it cannot be had."""
    with suppress(*lost()):
        channel = node.nodemanager.group[host.gateway_id].remote_exec(READ)
        channel.send((path, start))
        content: bytes = channel.receive(READ_TIMEOUT)
        return content
    return b""


def lost() -> tuple[type[Exception], ...]:
    """Return what execnet raises when a host is not there, or does not do what it should."""
    from execnet import HostNotFound, RemoteError, TimeoutError  # noqa: A004

    return HostNotFound, RemoteError, TimeoutError, OSError, EOFError


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

"""Requests from a machine to the process that runs it: what a source compiles to.

Both ways go values of execnet's, each after its length: builtins only, so that what comes from a
machine is no more than data.
"""

from __future__ import annotations

import os
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import UnavailableError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

PORT = "compile"
"""The name of the virtio port."""

HEAD = struct.Struct("<Q")


def answer_requests(port: socket.socket) -> None:
    """Compile for the machine behind ``port``, in a thread, for as long as there is one."""

    def serve() -> None:
        descriptor = port.fileno()
        with suppress(OSError, EOFError):
            while True:
                request = _receive(descriptor)
                from pytest_bpf.compile import remote  # noqa: PLC0415 (most machines ask nothing)

                _send(descriptor, remote.answer(request))

    threading.Thread(target=serve, daemon=True).start()


def open_port() -> int | None:
    """Return a descriptor of this machine's port; None where there is none."""
    for port in Path("/sys/class/virtio-ports").glob("*"):
        if (port / "name").read_text().strip() == PORT:
            return os.open(f"/dev/{port.name}", os.O_RDWR | os.O_CLOEXEC)
    return None


def asking(descriptor: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what sends a request over a port and waits for the answer; one at a time."""
    one_at_a_time = threading.Lock()

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        with one_at_a_time:
            try:
                _send(descriptor, request)
                return _receive(descriptor)
            except (OSError, EOFError) as error:
                raise UnavailableError(f"the host does not compile any more: {error}") from None

    return ask


def _send(descriptor: int, value: dict[str, Any]) -> None:
    from execnet import dumps  # noqa: PLC0415 (of the extra)

    data = dumps(value)
    view = memoryview(HEAD.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def _receive(descriptor: int) -> dict[str, Any]:
    from execnet import loads  # noqa: PLC0415 (of the extra)

    (length,) = HEAD.unpack(_read(descriptor, HEAD.size))
    value: dict[str, Any] = loads(_read(descriptor, length))
    return value


def _read(descriptor: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.read(descriptor, min(length, 1 << 20))
        if not part:
            raise EOFError("the other end is gone")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)

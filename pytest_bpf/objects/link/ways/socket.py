"""Socket filters and reuseport programs, by a socket option."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.objects.link.link import Link

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

SO_ATTACH_BPF, SO_DETACH_BPF = 50, 27
SO_ATTACH_REUSEPORT_EBPF, SO_DETACH_REUSEPORT_BPF = 52, 68
"""Socket options of ``asm-generic/socket.h``."""


def attach(program: Attachable, target: Any, _: Options) -> Link:
    """Attach to a socket."""
    if not isinstance(target, socket.socket):
        raise AttachError(f"program {program.name!r} ({program.type}) attaches to a socket")
    filter_ = program.type == "socket_filter"
    on = SO_ATTACH_BPF if filter_ else SO_ATTACH_REUSEPORT_EBPF
    off = SO_DETACH_BPF if filter_ else SO_DETACH_REUSEPORT_BPF
    target.setsockopt(socket.SOL_SOCKET, on, program.fd)

    def undo() -> None:
        if target.fileno() >= 0:
            target.setsockopt(socket.SOL_SOCKET, off, 0)

    return Link(program.name, "socket", undo)

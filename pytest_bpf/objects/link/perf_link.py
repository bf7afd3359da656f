"""What tracepoints, kprobes, uprobes and samples share: a program on a perf event."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys import perf_event
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.objects.link.link import Link

if TYPE_CHECKING:
    from pytest_bpf.objects.link.targets import Attachable


def perf_link(program: Attachable, event: int, target: str, cookie: int = 0) -> Link:
    """Attach to a perf event, by a link (5.15) or else by the event itself.

    The event belongs to the link from now on, and is closed when this fails.
    """
    fd = -1
    try:
        fd = _link_to(program, event, cookie)
        fcntl.ioctl(event, perf_event.ENABLE, 0)
    except BaseException:
        os.close(event)
        if fd >= 0:
            os.close(fd)
        raise

    def undo() -> None:
        if fd >= 0:
            os.close(fd)
        os.close(event)

    return Link(program.name, target, undo, fd=fd)


def _link_to(program: Attachable, event: int, cookie: int) -> int:
    options = struct.pack("=Q", cookie) if cookie else b""
    try:
        return create_link(program.fd, event, AttachType.PERF_EVENT, options=options)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    if cookie:
        raise AttachError(
            f"program {program.name!r}: this kernel takes no cookie for perf events (5.15 does)"
        )
    fcntl.ioctl(event, perf_event.SET_BPF, program.fd)
    return -1

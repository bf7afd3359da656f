"""Programs of a sockmap or sockhash."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys.bpf_syscall import attach_program, detach_program
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.query import occupant
from pytest_bpf.objects.link.targets import MapTarget, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, _: Options) -> Link:
    """Attach to a map of sockets: to those that are put into it from now on."""
    kind = program.expected_attach_type
    if not isinstance(target, MapTarget) or target.type not in {"sockmap", "sockhash"}:
        raise AttachError(
            f"program {program.name!r} ({program.type}) attaches to a sockmap, "
            f"not to {target_name(target)}"
        )
    if there := occupant(target.fd, kind):
        raise AttachError(
            f"program {program.name!r} cannot be attached to {target_name(target)}: it has one "
            f"program of that kind, which is {there}; detach() its link first",
            errno.EEXIST,
        )
    attach_program(target.fd, program.fd, kind)
    prog_fd, map_fd = os.dup(program.fd), os.dup(target.fd)

    def undo() -> None:
        try:
            with suppress(FileNotFoundError):  # another one took its place
                detach_program(map_fd, prog_fd, kind)
        finally:
            os.close(prog_fd)
            os.close(map_fd)

    return Link(program.name, target_name(target), undo)

"""Raw tracepoints."""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, near_matches
from pytest_bpf.kernel.sys.bpf_syscall import RAW_TRACEPOINT_OPEN, bpf
from pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.refusals import target_or_section

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to the tracepoint ``target``, or the one in the section."""
    name = target_or_section(program, target, "a raw tracepoint's name")
    text = ctypes.create_string_buffer(name.encode())
    attributes = struct.pack("=QI", ctypes.addressof(text), program.fd)
    if options.cookie:
        attributes += struct.pack("=IQ", 0, options.cookie)
    try:
        fd = bpf(RAW_TRACEPOINT_OPEN, attributes)
    except FileNotFoundError:
        raise AttachError(
            f"program {program.name!r} ({program.section}): this kernel has no raw tracepoint "
            f"{name!r}{near_matches(name, with_tracefs(_names))}",
            errno.ENOENT,
        ) from None
    return Link.owning(fd, program, name)


def _names() -> set[str]:
    """Return the names of tracepoints, most of which are raw ones too."""
    folder = tracefs()
    syscalls = {"sys_enter", "sys_exit"}
    return syscalls | {path.name for path in folder.glob("events/*/*")} if folder else syscalls

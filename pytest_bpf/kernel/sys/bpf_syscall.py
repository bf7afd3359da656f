"""bpf(2) itself, for the commands whose newer options an older libbpf does not pass on."""

from __future__ import annotations

import ctypes
import platform
import struct
from typing import NamedTuple

from pytest_bpf.kernel.sys.libc import syscall

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}

LINK_CREATE, LINK_UPDATE, LINK_DETACH = 28, 29, 34
PROG_ATTACH, PROG_DETACH, PROG_TEST_RUN, PROG_QUERY, RAW_TRACEPOINT_OPEN = 8, 9, 10, 16, 17
"""Members of ``enum bpf_cmd``."""


def call_number() -> int:
    """Return the number of bpf(2) on this machine."""
    return _NUMBERS[platform.machine()]


def bpf(command: int, attributes: ctypes.Array[ctypes.c_char] | bytes) -> int:
    """Make the system call with the first bytes of ``union bpf_attr``; raise `OSError`."""
    if isinstance(attributes, bytes):
        attributes = ctypes.create_string_buffer(attributes, len(attributes))
    return syscall(call_number(), "bpf", command, ctypes.byref(attributes), len(attributes))


def create_link(
    prog_fd: int, target_fd: int, attach_type: int, *, flags: int = 0, options: bytes = b""
) -> int:
    """Return the descriptor of a new link; raise `OSError`.

    ``target_fd`` is a descriptor or an interface's index; ``options`` are the bytes of the member
    of ``link_create`` that belongs to the attach type.
    """
    return bpf(LINK_CREATE, struct.pack("=4I", prog_fd, target_fd, attach_type, flags) + options)


def update_link(link_fd: int, prog_fd: int, *, flags: int = 0, old_prog_fd: int = 0) -> None:
    """Put another program into a link; raise `OSError`."""
    bpf(LINK_UPDATE, struct.pack("=4I", link_fd, prog_fd, flags, old_prog_fd))


def detach_link(link_fd: int) -> None:
    """Detach what a link attached, whoever holds it open or pinned; raise `OSError`."""
    bpf(LINK_DETACH, struct.pack("=I", link_fd))


def attach_program(
    target_fd: int,
    prog_fd: int,
    attach_type: int,
    *,
    flags: int = 0,
    replace_fd: int = 0,
    relative_fd: int = 0,
    revision: int = 0,
) -> None:
    """Attach a program without a link (``BPF_PROG_ATTACH``); raise `OSError`."""
    members = (target_fd, prog_fd, attach_type, flags, replace_fd)
    attributes = struct.pack("=5I", *members)
    if relative_fd or revision:
        attributes += struct.pack("=IQ", relative_fd, revision)
    bpf(PROG_ATTACH, attributes)


def detach_program(target_fd: int, prog_fd: int, attach_type: int) -> None:
    """Undo `attach_program`; raise `OSError`."""
    bpf(PROG_DETACH, struct.pack("=3I", target_fd, prog_fd, attach_type))


class HookPrograms(NamedTuple):
    """What hangs on a hook: (program id, link id) in the order of running, and the revision."""

    entries: list[tuple[int, int]]
    revision: int


def query_programs(target: int, attach_type: int, *, room: int = 64) -> HookPrograms:
    """Return what hangs on a hook; raise `OSError`.

    ``target`` is a descriptor or an interface's index; the kernel takes no more than ``room``
    programs on a hook. Link ids are 0 where there is no link, and on hooks for which the kernel
    does not tell it; so is the revision.
    """
    programs, links = (ctypes.c_uint32 * room)(), (ctypes.c_uint32 * room)()
    attributes = struct.pack(
        "=4IQII", target, attach_type, 0, 0, ctypes.addressof(programs), room, 0
    )
    if attach_type in _WITH_LINK_IDS:
        attributes += struct.pack("=4Q", 0, ctypes.addressof(links), 0, 0)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    bpf(PROG_QUERY, buffer)
    count = struct.unpack_from("=I", buffer, 24)[0]
    revision = struct.unpack_from("=Q", buffer, 56)[0] if attach_type in _WITH_LINK_IDS else 0
    return HookPrograms(list(zip(programs[:count], links[:count], strict=True)), revision)


_WITH_LINK_IDS = frozenset({46, 47, 54, 55})
"""The attach types of tcx and netkit."""

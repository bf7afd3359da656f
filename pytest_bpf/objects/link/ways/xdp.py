"""XDP: one program for each interface, by a link or, to replace one, by netlink."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, PlaceError
from pytest_bpf.kernel.programs import assembly
from pytest_bpf.kernel.programs.load import program as small_program
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.kernel.sys.ids import open_while
from pytest_bpf.kernel.sys.info import ProgramInfo, read_info
from pytest_bpf.kernel.sys.libbpf_options import XdpOptions
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.targets import (
    call_with_message,
    interface,
    program_fd,
    target_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

MODES = {None: 0, "generic": 1 << 1, "native": 1 << 2}
"""``XDP_FLAGS_SKB_MODE`` and ``XDP_FLAGS_DRV_MODE`` of ``uapi/linux/if_link.h``."""

ONLY_IF_NONE, REPLACE = 1 << 0, 1 << 4
"""``XDP_FLAGS_UPDATE_IF_NOEXIST``, ``XDP_FLAGS_REPLACE``."""

PASS_NAME, PASS_ALL = "pytest_bpf_pass", assembly.move(0, 2) + assembly.leave()
"""The program that stands where nobody attached one: it returns ``XDP_PASS``."""

SIOCGIFMTU = 0x8921


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach by a link; with ``replace`` put it in the place of a program that has no link."""
    if options.mode not in MODES:
        raise AttachError(f"XDP mode {options.mode!r} is none of 'native', 'generic'")
    ifindex, run = interface(program, target)
    flags = MODES[options.mode]
    peers = getattr(getattr(target, "namespace", None), "xdp_peers", {})
    if ifindex in peers:
        run(_make_room, ifindex)
    try:
        if options.replace is not None:
            old = program_fd(program, options.replace, "replace")
            return _replace(program, target, old, flags)
        fd = run(lambda: create_link(program.fd, ifindex, AttachType.XDP, flags=flags))
    except OSError as error:
        if error.errno == errno.ERANGE:
            raise _too_large(program, target, run(_mtu, ifindex)) from None
        raise
    if ifindex in peers and options.mode != "generic":
        namespace, index = peers[ifindex]
        namespace.run(_take_frames, index)
    return Link.owning(fd, program, target_name(target))


def _take_frames(ifindex: int) -> None:
    """Let a veth take what its other end sends by ``XDP_TX``: it needs a native program for that.

    One that passes everything is attached unless there is one already.
    """
    with suppress(OSError), small_program("xdp", None, PASS_ALL, PASS_NAME) as fd:
        libbpf.call("bpf_xdp_attach", ifindex, fd, MODES["native"] | ONLY_IF_NONE, None)


def _make_room(ifindex: int) -> None:
    """Detach the program that `_take_frames` attached, if it is still there."""
    number = ctypes.c_uint32()
    with suppress(OSError):
        libbpf.call("bpf_xdp_query_id", ifindex, MODES["native"], ctypes.byref(number))
        with open_while("prog", number.value) as fd:
            if fd is not None and read_info(fd, ProgramInfo).name == PASS_NAME.encode():
                libbpf.call("bpf_xdp_detach", ifindex, MODES["native"], None)


def _replace(program: Attachable, target: Any, old: int, flags: int) -> Link:
    ifindex, run = interface(program, target)
    _swap(run, ifindex, program.fd, flags, old)

    def undo() -> None:
        with suppress(PlaceError, OSError):  # the namespace is gone, or another took its place
            _swap(run, ifindex, -1, flags, program.fd)

    return Link(program.name, target_name(target), undo)


def _swap(run: Callable[..., Any], ifindex: int, new: int, flags: int, old: int) -> None:
    options = XdpOptions(old_prog_fd=old)
    arguments = (ifindex, new, flags | REPLACE, ctypes.byref(options))
    run(call_with_message, "bpf_xdp_attach", *arguments)


def _mtu(ifindex: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16s16x", socket.if_indextoname(ifindex).encode())
        answer = fcntl.ioctl(any_socket, SIOCGIFMTU, request)
        return int(struct.unpack_from("=i", answer, 16)[0])


def _too_large(program: Attachable, target: Any, mtu: int) -> AttachError:
    return AttachError(
        f"program {program.name!r} ({program.section}) cannot be attached to "
        f"{target_name(target)}: its MTU of {mtu} bytes, or its peer's, is too large for "
        "native XDP, which needs a packet in one page (ERANGE): set a smaller MTU on both ends, "
        "write SEC(\"xdp.frags\"), or pass mode='generic'",
        errno.ERANGE,
    )

"""Iterators: over everything of a kind, or over one map, task, process or cgroup."""

from __future__ import annotations

import ctypes
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.kinds.programs import parse_section
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.targets import CGROUP, MapTarget, descriptor, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

ORDERS = {"self_only": 1, "descendants_pre": 2, "descendants_post": 3, "ancestors_up": 4}
"""``enum bpf_cgroup_iter_order`` of ``uapi/linux/bpf.h``."""


OVER_A_MAP = frozenset({"bpf_map_elem", "bpf_sk_storage_map", "sockmap"})
OVER_SOCKETS = frozenset({"tcp", "udp", "unix", "netlink", "ipv6_route"})
"""Iterators over what is in a map, and in a network namespace."""


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Make the iterator; `Link.read` runs it."""
    if options.netns is not None and not hasattr(options.netns, "run"):
        raise AttachError(
            f"program {program.name!r}: netns= is a Namespace, not {target_name(options.netns)}"
        )
    parsed = parse_section(program.section)
    over = parsed.target if parsed else ""
    with ExitStack() as stack:
        info = _info(program, over, target, options, stack)
        if info:
            buffer = ctypes.create_string_buffer(info, len(info))
            place = struct.pack("=QI", ctypes.addressof(buffer), len(info))
        else:
            place = b""
        fd = create_link(program.fd, 0, AttachType.TRACE_ITER, options=place)
    link = Link.owning(fd, program, over if target is None else target_name(target))
    link.namespace = options.netns
    return link


def _info(program: Attachable, over: str, target: Any, options: Options, stack: ExitStack) -> bytes:
    """Return the bytes of ``union bpf_iter_link_info``, none for everything of the kind."""
    if over == "cgroup":
        order = options.order or "descendants_pre"
        if order not in ORDERS:
            raise AttachError(
                f"program {program.name!r}: order {order!r} is none of {', '.join(ORDERS)}"
            )
        if target is None:
            raise AttachError(f"program {program.name!r}: an iterator over cgroups takes a cgroup")
        fd = stack.enter_context(descriptor(program, target, CGROUP))
        return struct.pack("=IIQ", ORDERS[order], fd, 0)
    if options.order is not None:
        raise AttachError(f"program {program.name!r}: order= is for iterators over cgroups")
    if options.pid >= 0 or options.tid >= 0:
        if not over.startswith("task"):
            raise AttachError(
                f"program {program.name!r}: pid= and tid= are for iterators over tasks"
            )
        number = max(options.pid, options.tid)
        if not Path(f"/proc/{number}").exists():  # the kernel takes it, and iterates over nothing
            raise AttachError(f"program {program.name!r}: there is no process or thread {number}")
        return struct.pack("=III", max(options.tid, 0), max(options.pid, 0), 0)
    if target is None and over not in OVER_A_MAP:
        return b""
    if over in OVER_SOCKETS:
        raise AttachError(
            f"program {program.name!r} (iter/{over}) takes no target, not {target_name(target)}: "
            "netns= is the network namespace whose entries it reads"
        )
    if not isinstance(target, MapTarget):
        raise AttachError(
            f"program {program.name!r}: an iterator over a map takes a map, "
            f"not {target_name(target)}"
        )
    return struct.pack("=I", target.fd)

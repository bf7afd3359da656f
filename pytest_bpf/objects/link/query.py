"""What hangs on an interface, a cgroup or a network namespace, in order, whoever attached it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.errors.arguments import checked
from pytest_bpf.kernel.sys import ids, libbpf
from pytest_bpf.kernel.sys.bpf_syscall import query_programs
from pytest_bpf.kernel.sys.info import ProgramInfo, read_info
from pytest_bpf.kernel.sys.libbpf_options import XdpQueryOptions
from pytest_bpf.kernel.sys.tc_filters import PARENTS, tc_filters
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.kinds.programs import PROGRAMS
from pytest_bpf.objects.link.targets import (
    DescriptorTarget,
    InterfaceTarget,
    gone_interface,
    here,
    target_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

XDP_MODES = {1: "native", 2: "generic", 3: "offload", 4: "several"}
"""``enum`` of ``IFLA_XDP_ATTACHED`` of ``uapi/linux/if_link.h``."""

INTERFACE_TYPES = (
    *(AttachType.TCX_INGRESS, AttachType.TCX_EGRESS),
    *(AttachType.NETKIT_PRIMARY, AttachType.NETKIT_PEER),
)
NAMESPACE_TYPES = (AttachType.FLOW_DISSECTOR, AttachType.SK_LOOKUP)
CGROUP_TYPES = sorted(
    {
        AttachType(n)
        for row in PROGRAMS.values()
        if row.way == "cgroup"
        for n in row.sections.values()
    }
    | {AttachType.CGROUP_INET_INGRESS, AttachType.CGROUP_INET_EGRESS}
)

NOT_THERE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT}
"""What the kernel answers for a hook that it, or this kind of interface, does not have."""

NO_PRIMARY = {errno.ENXIO, errno.EACCES}
"""What it answers for netkit's hooks of an interface that is no netkit, and of a netkit's peer."""


@dataclass(frozen=True)
class Attachment:
    """One program on a hook: ``hook`` is ``"xdp native"``, ``"tcx_ingress"``, ``"tc ingress"``, ...

    ``program`` is its name, as much as the kernel keeps of it. ``link_id`` is 0 where there is no
    link, or where the kernel does not tell. ``priority``, ``handle`` and ``chain`` are those of tc
    filters, ``revision`` counts the changes of a tcx or netkit hook.
    """

    hook: str
    program: str
    program_id: int
    link_id: int = 0
    priority: int = 0
    handle: int = 0
    revision: int = 0
    chain: int = 0


@checked
def query(target: Any, hook: str | None = None) -> list[Attachment]:
    """Return what is attached to ``target``, in the order in which it runs.

    ``target`` is an interface, a cgroup or a network namespace: an object, a path, or the name or
    index of an interface in the caller's network namespace. ``hook`` keeps those whose hook is, or
    begins with, that text. netfilter programs are not listed: the kernel does not tell of which
    namespace they are. Raises `AttachError` for a target that is none of these.
    """
    if isinstance(target, int) and not 0 < target < 1 << 31:
        raise AttachError(f"{target} is no index of an interface: those begin at 1")
    with ExitStack() as stack:
        every = list(_all(target, stack))
    return [one for one in every if hook is None or one.hook.startswith(hook)]


def _all(target: Any, stack: ExitStack) -> Iterator[Attachment]:
    if isinstance(target, str) and os.sep not in target:
        try:
            target = socket.if_nametoindex(target)
        except OSError:
            raise AttachError(
                f"there is no interface {target!r} in this network namespace; pass a namespace's "
                ".iface, or the path of a cgroup or a network namespace"
            ) from None
    if isinstance(target, (InterfaceTarget, int)):
        if gone := gone_interface(target):
            raise AttachError(f"{gone} that could be queried", errno.ENODEV)
        run: Callable[..., Any] = here
        ifindex = target
        if isinstance(target, InterfaceTarget):
            ifindex, run = target.ifindex, target.namespace.run
        yield from run(_on_interface, ifindex)
        return
    if isinstance(target, (str, os.PathLike)):
        try:
            fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise AttachError(f"{target} cannot be queried: {error.strerror}") from None
        stack.callback(os.close, fd)
    elif isinstance(target, DescriptorTarget):
        fd = target.fileno()
    else:
        raise AttachError(
            f"query takes an interface, a cgroup or a network namespace, not {target_name(target)}"
        )
    if str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("net:["):
        yield from _by_types(fd, NAMESPACE_TYPES)
    else:
        yield from _by_types(fd, CGROUP_TYPES)


def _on_interface(ifindex: int) -> list[Attachment]:
    options = XdpQueryOptions()
    try:
        libbpf.call("bpf_xdp_query", ifindex, 0, ctypes.byref(options))
    except OSError as error:
        raise AttachError(
            f"interface {ifindex} cannot be queried: {libbpf.reason(error.errno or 0)}",
            error.errno or 0,
        ) from None
    attachments = []
    for mode, number in (("native", options.drv_prog_id), ("generic", options.skb_prog_id)):
        single = options.prog_id if XDP_MODES.get(options.attach_mode) == mode else 0
        if number or single:
            attachments.append(attachment(f"xdp {mode}", number or single))
    attachments += _by_types(ifindex, INTERFACE_TYPES)
    for direction in PARENTS:
        attachments += [
            attachment(
                f"tc {direction}",
                each.program_id,
                priority=each.priority,
                handle=each.handle,
                chain=each.chain,
            )
            for each in sorted(tc_filters(ifindex, direction), key=lambda each: each.chain)
        ]
    return attachments


def _by_types(target: int, types: tuple[AttachType, ...] | list[AttachType]) -> list[Attachment]:
    attachments = []
    for kind in types:
        try:
            entries, revision = query_programs(target, kind)
        except OSError as error:
            if error.errno in NOT_THERE | (NO_PRIMARY if kind.name.startswith("NETKIT") else set()):
                continue
            raise AttachError(
                f"{kind.name.lower()} cannot be queried: {libbpf.reason(error.errno or 0)}",
                error.errno or 0,
            ) from None
        hook = kind.name.lower()
        attachments += [attachment(hook, *entry, revision=revision) for entry in entries]
    return attachments


def occupant(fd: int, kind: int) -> str:
    """Return the name of the program that a new one would replace, in quotes.

    Empty where there is none, or where the kernel does not tell.
    """
    try:
        entries, _ = query_programs(fd, kind)
    except OSError:
        return ""
    return repr(attachment("", entries[0][0]).program) if entries else ""


def attachment(hook: str, program: int, link: int = 0, **more: int) -> Attachment:
    """Return a program on a hook, by ids; its name is empty when it is gone."""
    with ids.open_while("prog", program) as fd:
        name = "" if fd is None else read_info(fd, ProgramInfo).name.decode(errors="replace")
    return Attachment(hook, name, program, link, **more)

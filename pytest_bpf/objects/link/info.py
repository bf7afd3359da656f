"""What the kernel tells of a link."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pytest_bpf.kernel.sys.info import RawLinkInfo, read_info
from pytest_bpf.kinds.attach_types import AttachType

LINK_TYPES = (
    *("unspec", "raw_tracepoint", "tracing", "cgroup", "iter", "netns", "xdp", "perf_event"),
    *("kprobe_multi", "struct_ops", "netfilter", "tcx", "uprobe_multi", "netkit", "sockmap"),
)
"""``enum bpf_link_type``."""

_MEMBERS = {
    "tracing": ("I", ("attach_type",)),
    "cgroup": ("QI", ("cgroup_id", "attach_type")),
    "netns": ("II", ("netns_ino", "attach_type")),
    "xdp": ("I", ("ifindex",)),
    "tcx": ("II", ("ifindex", "attach_type")),
    "netkit": ("II", ("ifindex", "attach_type")),
    "sockmap": ("II", ("map_id", "attach_type")),
    "netfilter": ("IIi", ("family", "hook", "priority")),
}
"""The first members of each type's part of ``struct bpf_link_info``."""


@dataclass(frozen=True)
class LinkInfo:
    """A link as the kernel sees it (``struct bpf_link_info``).

    What its type does not have is None.

    ``type`` is libbpf's name (``"tcx"``), ``attach_type`` the kernel's in small letters
    (``"tcx_ingress"``). ``ifindex`` is 0 once the interface is gone, ``cgroup_id`` once the cgroup
    is. ``family``, ``hook`` and ``priority`` are those of netfilter.
    """

    id: int
    type: str
    program_id: int
    attach_type: str | None = None
    ifindex: int | None = None
    cgroup_id: int | None = None
    netns_ino: int | None = None
    map_id: int | None = None
    family: int | None = None
    hook: int | None = None
    priority: int | None = None


def link_info(fd: int) -> LinkInfo:
    """Return what the kernel tells of a link's descriptor; raise `OSError`."""
    raw = read_info(fd, RawLinkInfo)
    name = link_type(raw.type)
    form, names = _MEMBERS.get(name, ("", ()))
    members = dict(zip(names, struct.unpack_from("=" + form, bytes(raw.rest), 4), strict=True))
    number = members.pop("attach_type", None)
    return LinkInfo(raw.id, name, raw.prog_id, attach_type_name(number), **members)


def link_type(number: int) -> str:
    """Return libbpf's name of a link type; its number where this table is older."""
    return LINK_TYPES[number] if number < len(LINK_TYPES) else str(number)


def attach_type_name(number: int | None) -> str | None:
    """Return ``"tcx_ingress"`` for 46; the number as text where this table is older."""
    if number is None:
        return None
    return AttachType(number).name.lower() if number in set(AttachType) else str(number)

"""Where the machine's programs are attached, by their ids: what links tell, and interfaces.

Programs on interfaces of other network namespaces are there if a link attaches them; what was
attached to a cgroup without a link is not seen.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError
from pytest_bpf.kernel import btf
from pytest_bpf.kernel.sys import ids
from pytest_bpf.kernel.sys.info import RawLinkInfo, fill_info
from pytest_bpf.kernel.sys.mountinfo import mounts
from pytest_bpf.objects.link.info import LinkInfo, link_info
from pytest_bpf.objects.link.query import query

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_bpf.objects.link.query import Attachment

NAME_ROOM = 256
"""Bytes of a tracepoint's, or a function's, name."""

PERF_EVENTS = ("", "uprobe", "uretprobe", "kprobe", "kretprobe", "tracepoint", "perf_event")
"""``enum bpf_perf_event_type``, of links of the type ``perf_event`` (Linux 6.6)."""

MOST_CGROUPS = 5000
"""Cgroups whose ids are turned into paths; links to others are named by the id."""


def attach_points() -> dict[int, tuple[str, ...]]:
    """Return, by the ids of programs, where they are attached: ``"veth0 xdp"``, ``"kprobe f"``.

    Interfaces are named in the caller's network namespace; those of others go by their indexes.
    """
    points: dict[int, dict[str, None]] = {}
    cgroups, interfaces = _cgroups(), dict(_interfaces())
    for number in ids.every("link"):
        with suppress(OSError), ids.open_while("link", number) as fd:
            if fd is not None:
                info = link_info(fd)
                place = _place(fd, info, cgroups, interfaces)
                points.setdefault(info.program_id, {})[place] = None
    for interface in interfaces.values():
        for one in interface.attachments:
            if one.hook.startswith(("xdp", "tc ")):
                hook = one.hook.split()[0] if one.hook.startswith("xdp") else one.hook
                points.setdefault(one.program_id, {})[f"{interface.name} {hook}"] = None
    return {program: tuple(places) for program, places in points.items() if program}


@dataclass(frozen=True)
class _Interface:
    """An interface of the caller's network namespace, and what is attached to it."""

    name: str
    attachments: tuple[Attachment, ...]

    def has(self, link: LinkInfo) -> bool:
        """Say whether a link is here, and not on an interface elsewhere that has this index, too.

        The kernel tells the index alone. Of XDP it does not tell the link, but the program.
        """
        return any(
            one.program_id == link.program_id
            and (one.link_id == link.id or (link.type == "xdp" and one.hook.startswith("xdp")))
            for one in self.attachments
        )


def _interfaces() -> Iterator[tuple[int, _Interface]]:
    """Yield those of the caller's network namespace, by their indexes."""
    for index, name in socket.if_nameindex():
        with suppress(BpfError, OSError):  # it has gone meanwhile
            yield index, _Interface(name, tuple(query(index)))


def _place(
    fd: int, info: LinkInfo, cgroups: Mapping[int, str], interfaces: Mapping[int, _Interface]
) -> str:
    """Return what to call the place of one link."""
    kind = info.attach_type or info.type
    if info.ifindex is not None:
        here = interfaces.get(info.ifindex)
        if here is not None and here.has(info):
            return f"{here.name} {kind}"
        gone = "interface that is gone"
        return f"{f'interface {info.ifindex}' if info.ifindex else gone} {kind}"
    if info.cgroup_id is not None:
        return f"{cgroups.get(info.cgroup_id, f'cgroup {info.cgroup_id}')} {kind}"
    if info.netns_ino is not None:
        return f"netns {info.netns_ino} {kind}"
    if info.map_id is not None:
        return f"map {info.map_id} {kind}"
    if info.type == "raw_tracepoint":
        return f"raw_tp {_name(fd, 4)}".strip()
    if info.type == "perf_event":
        return _perf_event(fd)
    if info.type == "tracing":
        return f"{kind.removeprefix('trace_')} {_function(fd)}".strip()
    return kind


def _perf_event(fd: int) -> str:
    """Return a kernel function, a tracepoint or a file; older kernels do not tell."""
    raw = RawLinkInfo()
    fill_info(fd, raw)
    (number,) = struct.unpack_from("=I", bytes(raw.rest), 4)
    kind = PERF_EVENTS[number] if number < len(PERF_EVENTS) else ""
    name = _name(fd, 12) if kind and kind != "perf_event" else ""
    return f"{kind or 'perf_event'} {name}".strip()


def _function(fd: int) -> str:
    """Return the kernel's function or tracepoint that a tracing program is for."""
    raw = RawLinkInfo()
    fill_info(fd, raw)
    _, owner, number = struct.unpack_from("=3I", bytes(raw.rest), 4)
    with suppress(BpfError, OSError):
        if owner == 1:  # the kernel's own BTF is the first that there was
            return btf.vmlinux().name(number).removeprefix("btf_trace_")
    return f"program {owner}" if owner else ""


def _name(fd: int, offset: int) -> str:
    """Return a name that the kernel writes to where the link's information points at ``offset``."""
    room = ctypes.create_string_buffer(NAME_ROOM)
    raw = RawLinkInfo()
    struct.pack_into("=QI", raw.rest, offset, ctypes.addressof(room), NAME_ROOM)
    try:
        fill_info(fd, raw)
    except OSError:
        return ""
    return room.value.decode(errors="replace")


def _cgroups() -> dict[int, str]:
    """Return the paths of cgroups below the root, by their ids."""
    paths: dict[int, str] = {}
    found = mounts("cgroup2")
    if not found:
        return paths
    root = found[-1].path
    for folder, _, _ in os.walk(root):
        with suppress(OSError):
            paths[os.stat(folder).st_ino] = folder.removeprefix(str(root)) or "/"  # noqa: PTH116
        if len(paths) >= MOST_CGROUPS:
            break
    return paths

"""What of BPF a process holds open: its programs, maps and links, and what it attached by perf."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from ctypes import c_uint32, c_uint64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.kernel import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {
    "anon_inode:bpf-prog": ("program", "prog_id"),
    "anon_inode:bpf-map": ("map", "map_id"),
    "anon_inode:bpf_link": ("link", "link_id"),
}
_PERF_EVENT = "anon_inode:[perf_event]"
_HOOKS = ("raw_tracepoint", "tracepoint", "kprobe", "kretprobe", "uprobe", "uretprobe")
"""``enum bpf_task_fd_type``."""


@dataclass(frozen=True)
class PerfAttachment:
    """A program that a process attached to a perf event: ``target`` is ``"kprobe vfs_read"``."""

    program: int
    target: str


def held() -> set[str]:
    """Return ``"map 12"``, ``"program 7"``, ``"link 3"``: what this process holds open, by id."""
    return {f"{kind} {number}" for kind, number in held_by()}


def held_by(pid: int | str = "self") -> set[tuple[str, int]]:
    """Return ``("map", 12)``, ``("program", 7)``, ``("link", 3)``: what a process holds open.

    A process that is gone holds nothing. Raises `PermissionError` for one of somebody else.
    """
    found = set()
    for fd, link in _descriptors(pid):
        kind = _KINDS.get(link)
        if kind is not None:
            with suppress(FileNotFoundError, ProcessLookupError):
                found.add((kind[0], _number(pid, fd, kind[1])))
    return found


def attached_by(pid: int) -> list[PerfAttachment]:
    """Return what a process attached to perf events (``BPF_TASK_FD_QUERY``)."""
    return [found for fd in _events(pid) if (found := _queried(pid, fd)) is not None]


def unattached_events(pid: int) -> list[int]:
    """Return the descriptors of a process's perf events that have no program."""
    return [fd for fd in _events(pid) if _queried(pid, fd) is None]


def _events(pid: int) -> list[int]:
    return [fd for fd, link in _descriptors(pid) if link == _PERF_EVENT]


def _descriptors(pid: int | str) -> Iterator[tuple[int, str]]:
    with suppress(FileNotFoundError, ProcessLookupError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed since: that of this listing, or by another thread
                yield int(fd.name), str(fd.readlink())


def _number(pid: int | str, fd: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def _queried(pid: int, fd: int) -> PerfAttachment | None:
    name = ctypes.create_string_buffer(256)
    size, program, hook = c_uint32(len(name)), c_uint32(), c_uint32()
    numbers = (c_uint64(), c_uint64())
    out = (size, program, hook, *numbers)
    try:
        libbpf.call("bpf_task_fd_query", pid, fd, 0, name, *map(ctypes.byref, out))
    except OSError:  # an event without a program, or closed since
        return None
    where = name.value.decode(errors="replace") or f"{numbers[1].value:#x}"
    return PerfAttachment(program.value, f"{_HOOKS[hook.value]} {where}")

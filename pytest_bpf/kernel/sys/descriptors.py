"""What of BPF a process holds open: its programs, maps and links, and what it attached by perf."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from ctypes import c_uint32, c_uint64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {
    "anon_inode:bpf-prog": ("program", "prog_id"),
    "anon_inode:bpf-map": ("map", "map_id"),
    "anon_inode:bpf_link": ("link", "link_id"),
    "anon_inode:bpf-link": ("link", "link_id"),
}
"""What it is by the name of its file; a link has the second one when it was opened by pin or id."""
TEST_VARIABLE = "PYTEST_CURRENT_TEST"
"""The variable in which pytest has the test that runs, and its phase in parentheses."""

_PERF_EVENT = "anon_inode:[perf_event]"
_HOOKS = ("raw_tracepoint", "tracepoint", "kprobe", "kretprobe", "uprobe", "uretprobe")
"""``enum bpf_task_fd_type``."""


SERVANTS: set[str] = set()
"""What serves another object of this process and is freed with it, as `open_objects` names it.

The program that reads a map of a module or a session belongs to no test that reads the map.
"""


@dataclass(frozen=True)
class PerfAttachment:
    """A program that a process attached to a perf event: ``target`` is ``"kprobe vfs_read"``."""

    program: int
    target: str


def open_objects() -> set[str]:
    """Return ``"map 12"``, ``"program 7"``, ``"link 3"``: what this process holds open, by id."""
    return {f"{kind} {number}" for kind, number in objects_open_in()}


def objects_open_in(pid: int | str = "self") -> set[tuple[str, int]]:
    """Return ``("map", 12)``, ``("program", 7)``, ``("link", 3)``: what a process holds open.

    A process that is gone holds nothing. Raises `PermissionError` for one of somebody else.
    """
    objects = set()
    for fd, link in _descriptors(pid):
        kind = _KINDS.get(link)
        if kind is not None:
            with suppress(FileNotFoundError, ProcessLookupError):
                objects.add((kind[0], _number(pid, fd, kind[1])))
    return objects


def object_of(fd: int) -> tuple[Literal["prog", "map", "link"], int]:
    """Return what a descriptor of this process is, as in libbpf's names, and its id."""
    kind, field = _KINDS[os.readlink(f"/proc/self/fd/{fd}")]  # noqa: PTH115
    number = _number("self", fd, field)
    return ("prog" if kind == "program" else "map" if kind == "map" else "link"), number


def descendants() -> set[int]:
    """Return the processes below this one; those whose parent is gone are left out."""
    return set(_descendants(os.getpid()))


def objects_open_in_children(below: set[int]) -> set[str]:
    """Return ``"program 7 in process 123 (python3)"``: what the `descendants` hold open.

    Those of somebody else are left out.
    """
    return {
        f"{kind} {number} in process {pid} ({_command(pid)})"
        for pid in below
        for kind, number in _objects_or_nothing(pid)
    }


def processes() -> set[int]:
    """Return the ids of all processes."""
    return {int(name) for name in _names("/proc") if name.isdigit()}


def objects_open_in_daemons(
    earlier: set[int], below: set[int], test: str, made: set[str]
) -> set[str]:
    """Return ``"program 7 in process 123 (python3)"``: what daemons of a test hold open.

    A daemon is a process that is neither of those ``earlier`` nor ``below``. It is the test's when
    its environment has the id of the ``test``, or when it holds what this process has ``made``
    (``"program 7"``). Those of somebody else are left out.
    """
    return {
        f"{kind} {number} in process {pid} ({_command(pid)})"
        for pid in processes() - earlier - below - {os.getpid()}
        for kind, number in _objects_or_nothing(pid)
        if f"{kind} {number}" in made or _is_of_test(pid, test)
    }


def _is_of_test(pid: int, test: str) -> bool:
    """Say whether a process was started while a test ran: pytest's variable has its name."""
    with suppress(OSError):
        environment = _read(f"/proc/{pid}/environ").split(b"\0")
        return any(each.startswith(f"{TEST_VARIABLE}={test} (".encode()) for each in environment)
    return False


def _objects_or_nothing(pid: int) -> set[tuple[str, int]]:
    with suppress(PermissionError):
        return objects_open_in(pid)
    return set()


def _descendants(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for task in _names(f"/proc/{pid}/task"):
            with suppress(OSError):
                for child in map(int, _read(f"/proc/{pid}/task/{task}/children").split()):
                    yield child
                    yield from _descendants(child)


def _command(pid: int) -> str:
    with suppress(OSError):
        return _read(f"/proc/{pid}/comm").decode(errors="replace").strip()
    return "gone"


# Without pathlib, which interns each part of a path, and the table of what is interned only grows:
# all this is asked before and after each test.


def _names(folder: str) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def perf_attachments(pid: int) -> list[PerfAttachment]:
    """Return what a process attached to perf events (``BPF_TASK_FD_QUERY``)."""
    return [program for fd in _events(pid) if (program := _queried(pid, fd)) is not None]


def perf_events_without_program(pid: int) -> list[int]:
    """Return the descriptors of a process's perf events that have no program."""
    return [fd for fd in _events(pid) if _queried(pid, fd) is None]


def _events(pid: int) -> list[int]:
    return [fd for fd, link in _descriptors(pid) if link == _PERF_EVENT]


def _descriptors(pid: int | str) -> Iterator[tuple[int, str]]:
    folder = f"/proc/{pid}/fd"
    with suppress(FileNotFoundError, ProcessLookupError):
        for name in _names(folder):
            with suppress(OSError):  # closed since: that of this listing, or by another thread
                yield int(name), os.readlink(f"{folder}/{name}")  # noqa: PTH115


def _number(pid: int | str, fd: int, field: str) -> int:
    lines = _read(f"/proc/{pid}/fdinfo/{fd}").decode("ascii").splitlines()
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

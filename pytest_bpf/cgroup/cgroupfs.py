"""The cgroup v2 file system: where it is, where we are in it, and removing a part of it."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import PlaceError, PrivilegeError, UnavailableError
from pytest_bpf.kernel.sys.mountinfo import mounts
from pytest_bpf.kernel.sys.names import claims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.kernel.sys.mountinfo import Mount

WRITING = ("CAP_DAC_OVERRIDE",)
REMEDY = "run as root or delegate the cgroup"
"""What writing to a cgroup of another user needs, and what else helps."""

PATIENCE = 10.0
"""Seconds to wait until the processes in a cgroup are gone."""


def hierarchy() -> Mount:
    """Return where cgroup v2 is mounted for writing, on its own or beside v1 (hybrid).

    Raises `UnavailableError` when it is not.
    """
    v2_mounts = mounts("cgroup2")
    for mount in v2_mounts:
        if mount.writable:
            return mount
    if v2_mounts:
        where = ", ".join(str(mount.path) for mount in v2_mounts)
        raise UnavailableError(f"cgroup v2 is mounted read-only ({where}); remount it rw")
    raise UnavailableError("cgroup v2 is not mounted; mount -t cgroup2 none /sys/fs/cgroup/unified")


def current() -> Path:
    """Return the directory of the cgroup that this process is in (``cgroups(7)``)."""
    mount = hierarchy()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            inside = os.path.relpath(path, mount.root)
            if path.startswith("/..") or inside.startswith(".."):
                break
            return mount.path / inside
    raise UnavailableError(
        f"this process's cgroup is not below {mount.path}, where cgroup v2 is mounted; "
        "mount cgroup2 inside the container, with its own cgroup namespace"
    )


def enter(directory: Path) -> None:
    """Move this process, with all its threads, into a cgroup."""
    try:
        (directory / "cgroup.procs").write_text("0")
    except PermissionError as error:
        action = f"entering the cgroup {directory}"
        raise PrivilegeError(action, *WRITING, remedy=REMEDY) from error
    except OSError as error:
        raise PlaceError(f"the cgroup {directory} cannot be entered: {error.strerror}") from error


def remove(directory: Path) -> None:
    """Kill what runs in a cgroup and its children, and remove them; raise `OSError`."""
    if not directory.is_dir():
        return
    _kill(directory)
    for child in _subtree(directory):
        with suppress(FileNotFoundError):
            child.rmdir()


def leftovers(stale: Callable[[str], bool]) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """Find the cgroups with stale names, each with what removes it."""
    try:
        top = hierarchy().path
    except UnavailableError:
        return
    for directory, folders, _ in os.walk(top):
        v2_mounts = [name for name in folders if stale(name)]
        folders[:] = [name for name in folders if name not in v2_mounts]
        for name in v2_mounts:
            yield Path(directory, name), remove


def made_here() -> list[Path]:
    """Return the cgroups that this process made and that are not closed."""
    return claims(remove)


def is_cgroup(path: str) -> bool:
    """Say whether a path is a directory of the cgroup v2 file system."""
    return Path(path, "cgroup.controllers").is_file()


def _subtree(directory: Path) -> list[Path]:
    """Return a cgroup and all below it, the deepest first."""
    return [Path(path) for path, _, _ in os.walk(directory, topdown=False)]


def _kill(directory: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    with (directory / "cgroup.events").open("rb", buffering=0) as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while b"populated 1" in events.read():
            _signal(directory)
            left = deadline - time.monotonic()
            if left < 0:
                raise TimeoutError(f"processes in {directory} are not gone {PATIENCE:g} s after")
            poll.poll(left * 1000)
            events.seek(0)


def _signal(directory: Path) -> None:
    """Kill all in a cgroup and below: cgroup.kill since Linux 5.14, else one after another."""
    switch = directory / "cgroup.kill"
    if switch.exists():
        switch.write_text("1")
        return
    for path in _subtree(directory):
        for pid in (path / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

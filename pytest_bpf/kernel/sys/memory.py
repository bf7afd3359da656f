"""How much memory this process may still take, and a memory cgroup for a child."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys.mountinfo import mounts
from pytest_bpf.kernel.sys.names import unique_name

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
"""The file with the limit of a memory cgroup, and the one with its use: version 2, version 1."""


def available_memory() -> int:
    """Return the bytes that can be allocated: by the machine, and by the memory cgroup."""
    machine = [_meminfo("MemAvailable")]
    for folder in _folders():
        for limit, use in LIMITS.items():
            most, used = _number(folder / limit), _number(folder / use)
            if most is not None and used is not None:
                machine.append(most - used)
    return max(0, min(machine))


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path | None]:
    """Make a memory cgroup with a limit below this process's own; None where none can be made.

    A process that writes its pid into ``cgroup.procs`` is held by it. It is removed at the end.
    """
    folder = next((path for path in map(_make, _folders()) if path is not None), None)
    try:
        if folder is not None and not any(_write(folder / name, limit) for name in LIMITS):
            folder.rmdir()
            folder = None
        yield folder
    finally:
        if folder is not None:
            with suppress(OSError):
                folder.rmdir()


def enter(folder: Path) -> None:
    """Move this process into a cgroup, as far as that is allowed."""
    with suppress(OSError):
        (folder / "cgroup.procs").write_text(str(os.getpid()))


def _folders() -> Iterator[Path]:
    """Yield the folders of this process's cgroups that may limit its memory."""
    memberships = Path("/proc/self/cgroup").read_text(errors="replace").splitlines()
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        for mount in mounts("cgroup" if controllers else "cgroup2"):
            folder = mount.path / path.lstrip("/")
            if any((folder / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):
                yield folder


def _make(parent: Path) -> Path | None:
    folder = parent / unique_name()
    with suppress(OSError):
        folder.mkdir()
        return folder
    return None


def _write(file: Path, value: int) -> bool:
    if not file.exists():
        return False
    with suppress(OSError):
        file.write_text(str(value))
        return True
    return False


def _number(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 1 << 62

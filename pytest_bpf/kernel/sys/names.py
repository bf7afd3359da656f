"""Names for what outlives a process: cgroups, pins, mounts; and their removal at its end."""

from __future__ import annotations

import atexit
import itertools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "pytest-bpf"
DEAD = {"Z", "X", "x"}
"""Process states, of proc(5), of what does not run any more."""

_numbers = itertools.count()
_claims: dict[Path, tuple[int, Callable[[Path], None]]] = {}
"""What this process has to remove at its end, by path: its process id, and how."""

_shape = re.compile(rf"{PREFIX}-(\d+)-(\d+)-(\d+)-(\d+)")


def unique_name() -> str:
    """Return a new ``pytest-bpf-<pid namespace>-<pid>-<start time>-<n>`` of this process.

    The start time, in clock ticks since boot (field 22 of ``/proc/<pid>/stat``), tells the process
    from a later one with its pid; the inode of the pid namespace tells whose pid it is. There is no
    dot in it because the bpf file system takes none (``bpf_lookup``).
    """
    pid = os.getpid()
    start = _start_time(pid)
    return f"{PREFIX}-{_pid_namespace()}-{pid}-{start}-{next(_numbers)}"


def claim(path: Path, remove: Callable[[Path], None]) -> Path:
    """Return ``path``, which ``remove`` removes when this process ends, until it is released.

    Claim what is going to be made before it is made: then an interruption finds no gap between
    the making and whoever closes it.
    """
    _claims[path] = (os.getpid(), remove)
    return path


def release(path: Path) -> None:
    """Forget a path that was removed."""
    _claims.pop(path, None)


def claims(remove: Callable[[Path], None]) -> list[Path]:
    """Return the paths that ``remove`` removes when this process ends."""
    return [path for path, claim in _claims.items() if claim == (os.getpid(), remove)]


@atexit.register
def remove_claims() -> None:
    """Remove what this process has claimed and not released; a fork leaves its parent's alone."""
    for path, (pid, remove) in list(_claims.items()):
        if pid == os.getpid() and os.path.lexists(path):
            with suppress(OSError):
                remove(path)
        release(path)


def is_stale(name: str) -> bool:
    """Say whether ``name`` is one of `unique_name` and the process that made it is dead.

    What was made in another pid namespace (a container) is never stale: who knows.
    """
    match = _shape.fullmatch(name)
    if match is None or int(match[1]) != _pid_namespace():
        return False
    return _start_time(int(match[2])) != int(match[3])


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _start_time(pid: int) -> int | None:
    """Return when a process started, or None when it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in DEAD else int(fields[19])

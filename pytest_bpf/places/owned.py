"""Names for what outlives a process (cgroups, pins, mounts), and sweeping up after killed ones."""

from __future__ import annotations

import itertools
import os
import re
from contextlib import suppress
from pathlib import Path

PREFIX = "pytest-bpf"
DEAD = {"Z", "X", "x"}
"""Process states, of proc(5), of what does not run any more."""

_numbers = itertools.count()
_shape = re.compile(rf"{PREFIX}-(\d+)-(\d+)-(\d+)-(\d+)")


def owned_name() -> str:
    """Return a new ``pytest-bpf-<pid namespace>-<pid>-<start time>-<n>`` of this process.

    The start time, in clock ticks since boot (field 22 of ``/proc/<pid>/stat``), tells the process
    from a later one with its pid; the inode of the pid namespace tells whose pid it is. There is no
    dot in it because the bpf file system takes none (``bpf_lookup``).
    """
    pid = os.getpid()
    start = _start_time(pid)
    return f"{PREFIX}-{_pid_namespace()}-{pid}-{start}-{next(_numbers)}"


def is_stale(name: str) -> bool:
    """Say whether ``name`` is one of `owned_name` and the process that made it is dead.

    What was made in another pid namespace (a container) is never stale: who knows.
    """
    match = _shape.fullmatch(name)
    if match is None or int(match[1]) != _pid_namespace():
        return False
    return _start_time(int(match[2])) != int(match[3])


def sweep() -> list[str]:
    """Remove what killed processes of this package left, and return the paths that are gone.

    That is cgroups (their processes are killed), folders of pins, and private bpf mounts. What
    cannot be removed is left for another time. Nobody else's things are touched.
    """
    from pytest_bpf.places import bpffs, cgroupfs  # noqa: PLC0415 - only killed runs need it

    removed = []
    for path, remove in (*cgroupfs.leftovers(is_stale), *bpffs.leftovers(is_stale)):
        with suppress(OSError):
            remove(path)
            removed.append(str(path))
    return removed


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

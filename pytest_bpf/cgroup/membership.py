"""Moves this process into a cgroup and back. All threads of a process share one cgroup."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.cgroup import cgroupfs
from pytest_bpf.errors import PlaceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, eq=False)
class _Visit:
    directory: Path
    thread: int


_lock = threading.Lock()
_visits: list[_Visit] = []
_home: list[Path] = []


@contextmanager
def visit(directory: Path) -> Iterator[None]:
    """Keep this process in a cgroup, and bring it back to where it was.

    Visits nest. Threads may visit the same cgroup at the same time; one that wants another cgroup
    meanwhile gets a `PlaceError`.
    """
    visit = _Visit(directory, threading.get_ident())
    with _lock:
        if _visits and _visits[-1].directory != directory and _visits[-1].thread != visit.thread:
            raise PlaceError(
                f"another thread keeps this process in the cgroup {_visits[-1].directory.name}, so "
                f"it cannot be in {directory.name} now; use run() of one cgroup at a time"
            )
        if not _visits:
            _home[:] = [cgroupfs.current()]
        _visits.append(visit)
    try:
        cgroupfs.enter(directory)
        yield
    finally:
        with _lock:
            _visits.remove(visit)
            cgroupfs.enter(_visits[-1].directory if _visits else _home[0])

"""What a compilation depends on: the headers that it read, and those that must not appear."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.compile.command import system_folders
from pytest_bpf.compile.headers import SETTLED_NS, Header, observe, shadows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.cache import Cache
    from pytest_bpf.compile.command import Task


def headers_of(cache: Cache, task: Task, files: Iterable[str]) -> tuple[Header, ...]:
    """Return the files as they are now, without the source: its content is in the key.

    Files of the cache itself are never written twice, so they count as old at once.
    """
    now = time.time_ns()
    mine, source = f"{cache.folder}/", str(task.source.path)
    return tuple(
        observe(file, now + 2 * SETTLED_NS if file.startswith(mine) else now)
        for file in dict.fromkeys(files)
        if file != source
    )


def absent(cache: Cache, task: Task, headers: Iterable[Header]) -> tuple[str, ...]:
    """Return the paths that must stay absent: a header there would be included instead."""
    system = system_folders()
    elsewhere = tuple(f"{folder}/" for folder in (*system, cache.folder))
    folders = {header.path: str(Path(header.path).parent) for header in headers}
    users = [folder for path, folder in folders.items() if not path.startswith(elsewhere)]
    private = dict.fromkeys((str(task.source.path.parent), *task.include_dirs, *users, system[0]))
    made = {folder for path, folder in folders.items() if path.startswith(f"{cache.folder}/")}
    return shadows(folders, tuple(private), (*private, *system, *made))

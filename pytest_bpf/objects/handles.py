"""Keys and values that stand for something else: sockets, programs, maps, cgroups, processes."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError, ValueTypeError

if TYPE_CHECKING:
    from collections.abc import Iterator


NAMED_BY_PATH = frozenset({"inode_storage", "cgrp_storage", "cgroup_array"})


@contextmanager
def descriptor(kind: str, value: Any, what: str) -> Iterator[int]:
    """Yield the file descriptor that stands for ``value``, closed after when it was opened here.

    A task is named by its pid (or what has a ``pid``), a file or a cgroup by its path; everything
    that has ``fd`` or ``fileno()`` (programs, maps, sockets, cgroups) stands for itself.
    """
    try:
        opened = _open(kind, value)
    except OSError as error:
        raise MapError(f"{what}: {value!r} cannot be opened: {error.strerror}") from None
    if opened is None:
        yield _held(kind, value, what)
        return
    try:
        yield opened
    finally:
        os.close(opened)


def _open(kind: str, value: Any) -> int | None:
    if kind == "task_storage" and not hasattr(value, "fileno"):
        return os.pidfd_open(getattr(value, "pid", value))
    if kind in NAMED_BY_PATH and isinstance(value, (str, Path)):
        return os.open(value, os.O_PATH if kind == "inode_storage" else os.O_RDONLY)
    return None


def _held(kind: str, value: Any, what: str) -> int:
    held = getattr(value, "fd", value)
    held = held.fileno() if hasattr(held, "fileno") else held
    if not isinstance(held, int) or held < 0:
        raise ValueTypeError(
            f"{what}: a {kind} takes something with a file descriptor, not {type(value).__name__}"
        )
    return held

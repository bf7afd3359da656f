"""Keys and values that stand for something else: sockets, programs, maps, cgroups, processes."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError, ValueTypeError, with_article
from pytest_bpf.kernel.values.codec import describe

if TYPE_CHECKING:
    from collections.abc import Iterator


MEANS = {
    "prog_array": "a program",
    "array_of_maps": "a map, or a dict, which becomes one",
    "hash_of_maps": "a map, or a dict, which becomes one",
    "sockmap": "a socket",
    "sockhash": "a socket",
    "reuseport_sockarray": "a socket",
    "xskmap": "an AF_XDP socket",
    "cgroup_array": "a cgroup, or its path",
    "task_storage": "a pid",
    "inode_storage": "a path, or an open file",
    "cgrp_storage": "a cgroup, or its path",
    "sk_storage": "a socket",
}
"""What the keys or the values of a kind of map are."""

NAMED_BY_PATH = frozenset({"inode_storage", "cgrp_storage", "cgroup_array"})


@contextmanager
def descriptor(kind: str, value: Any, label: str) -> Iterator[int]:
    """Yield the file descriptor that stands for ``value``, closed after when it was opened here.

    A task is named by its pid (or what has a ``pid``), a file or a cgroup by its path; everything
    that has ``fd`` or ``fileno()`` (programs, maps, sockets, cgroups) stands for itself.
    """
    try:
        fd = _open(kind, value)
    except OSError as error:
        raise MapError(f"{label}: {value!r} cannot be opened: {error.strerror}") from None
    if fd is None:
        yield _own_fd(kind, value, label)
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _open(kind: str, value: Any) -> int | None:
    if kind == "task_storage" and not hasattr(value, "fileno"):
        pid = getattr(value, "pid", value)
        return os.pidfd_open(pid) if isinstance(pid, int) else None
    if kind in NAMED_BY_PATH and isinstance(value, (str, Path)):
        return os.open(value, os.O_PATH if kind == "inode_storage" else os.O_RDONLY)
    return None


def _own_fd(kind: str, value: Any, label: str) -> int:
    fd = getattr(value, "fd", value)
    fd = fd.fileno() if hasattr(fd, "fileno") else fd
    if not isinstance(fd, int) or fd < 0:
        means = f" ({MEANS[kind]})" if kind in MEANS else ""
        raise ValueTypeError(
            f"{label}: {with_article(kind)} takes something with a file descriptor{means}, "
            f"not {describe(value)}"
        )
    return fd

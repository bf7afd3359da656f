"""Maps that others made: found by id or by pin."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pytest_bpf.errors import MapError
from pytest_bpf.kernel import libbpf


def by_id(map_id: int) -> int:
    """Return a descriptor of the map with this id; `MapError` when there is none."""
    try:
        return int(libbpf.call("bpf_map_get_fd_by_id", map_id))
    except OSError as error:
        raise MapError(f"there is no map with id {map_id}: {error.strerror}") from None


def by_pin(path: str | os.PathLike[str]) -> int:
    """Return a descriptor of the map pinned to a path; `MapError` when there is none."""
    what = f"there is no map pinned to {os.fspath(path)}"
    try:
        fd = int(libbpf.call("bpf_obj_get", os.fsencode(path)))
    except OSError as error:
        raise MapError(f"{what}: {error.strerror}") from None
    if Path(f"/proc/self/fd/{fd}").readlink().name.endswith("bpf-map"):
        return fd
    os.close(fd)
    raise MapError(f"{what}, but something else")


def pin(fd: int, what: str, path: str | os.PathLike[str]) -> None:
    """Pin a map to a path; `MapError` when something is there, or the path is on no bpffs."""
    try:
        libbpf.call("bpf_obj_pin", fd, os.fsencode(path))
    except OSError as error:
        code = error.errno or 0
        why = {
            errno.EEXIST: "something is pinned there",
            errno.EPERM: "that is on no bpf file system",
        }.get(code, error.strerror)
        raise MapError(f"{what}: pinning to {os.fspath(path)} failed: {why}", code) from None

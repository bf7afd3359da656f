"""Descriptors of programs, maps and links, by the kernel's ids and by pins."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_bpf.errors import LoadError, MapError
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["prog", "map", "link"]
"""As in the names of libbpf's functions."""


def every(kind: Kind) -> Iterator[int]:
    """Yield the ids that there are, ascending (``BPF_*_GET_NEXT_ID``); raise `OSError`."""
    following = ctypes.c_uint32()
    while True:
        try:
            libbpf.call(f"bpf_{kind}_get_next_id", following.value, ctypes.byref(following))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield following.value


def open_id(kind: Kind, number: int) -> int:
    """Return a descriptor of what has this id; raise `OSError`, ENOENT when there is none."""
    return int(libbpf.call(f"bpf_{kind}_get_fd_by_id", number))


def exists(kind: Kind, number: int) -> bool:
    """Say whether the kernel has something with this id."""
    try:
        os.close(open_id(kind, number))
    except OSError as error:
        return error.errno != errno.ENOENT
    return True


@contextmanager
def open_while(kind: Kind, number: int) -> Iterator[int | None]:
    """Yield a descriptor of what has this id, closed after; None when it is gone."""
    try:
        fd = open_id(kind, number)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


WORDS = {"prog": "program", "map": "map"}
_ERRORS = {"prog": LoadError, "map": MapError}


def by_id(kind: Kind, number: int) -> int:
    """Return a descriptor of the program or map with this id.

    Raises `LoadError` or `MapError` when there is none.
    """
    try:
        return open_id(kind, number)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise _ERRORS[kind](f"there is no {WORDS[kind]} with id {number}: {why}") from None


def by_pin(kind: Kind, path: str | os.PathLike[str]) -> int:
    """Return a descriptor of the program or map pinned to a path; the errors of `by_id`."""
    what, error_type = f"there is no {WORDS[kind]} pinned to {os.fspath(path)}", _ERRORS[kind]
    try:
        fd = int(libbpf.call("bpf_obj_get", os.fsencode(path)))
    except OSError as error:
        raise error_type(f"{what}: {error.strerror}") from None
    if Path(f"/proc/self/fd/{fd}").readlink().name.endswith(f"bpf-{kind}"):
        return fd
    os.close(fd)
    raise error_type(f"{what}, but something else")


def pin(fd: int, what: str, path: str | os.PathLike[str]) -> None:
    """Pin a map to a path; `MapError` when something is there, or the path is on no bpffs."""
    try:
        libbpf.call("bpf_obj_pin", fd, os.fsencode(path))
    except OSError as error:
        code = error.errno or 0
        dots = "." in os.path.basename(os.fspath(path))  # noqa: PTH119 (bytes are fine too)
        why = {
            errno.EEXIST: "something is pinned there",
            errno.EPERM: "a bpf file system takes no dots in names"
            if dots
            else "that is on no bpf file system",
        }.get(code, error.strerror)
        raise MapError(f"{what}: pinning to {os.fspath(path)} failed: {why}", code) from None

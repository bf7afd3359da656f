"""Programs, maps and links of the whole machine by the kernel's ids."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pytest_bpf.kernel import libbpf

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


def opened(kind: Kind, number: int) -> int:
    """Return a descriptor of what has this id; raise `OSError`, ENOENT when there is none."""
    return int(libbpf.call(f"bpf_{kind}_get_fd_by_id", number))


def exists(kind: Kind, number: int) -> bool:
    """Say whether the kernel has something with this id."""
    try:
        os.close(opened(kind, number))
    except OSError as error:
        return error.errno != errno.ENOENT
    return True


@contextmanager
def borrowed(kind: Kind, number: int) -> Iterator[int | None]:
    """Yield a descriptor of what has this id, closed after; None when it is gone."""
    try:
        fd = opened(kind, number)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)

"""The system calls that Python 3.10 lacks: unshare(2), setns(2), mount(2) and umount2(2)."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MNT_DETACH = 2


@cache
def _libc() -> ctypes.CDLL:
    loaded = ctypes.CDLL(None, use_errno=True)
    loaded.mount.argtypes = (
        *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p),
        *(ctypes.c_ulong, ctypes.c_char_p),
    )
    return loaded


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def unshare(flags: int) -> None:
    """Give the calling thread its own namespaces (``unshare(2)``); raise `OSError`."""
    _check(_libc().unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Move the calling thread into a namespace (``setns(2)``); raise `OSError`."""
    _check(_libc().setns(descriptor, flags), "setns")


def mount_bpffs(path: Path) -> None:
    """Mount a bpf file system, readable by its owner only, on ``path``; raise `OSError`."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _check(_libc().mount(b"bpf", os.fsencode(path), b"bpf", flags, b"mode=0700"), str(path))


def unmount(path: Path) -> None:
    """Take away what is mounted on ``path``, at once even when it is in use; raise `OSError`."""
    _check(_libc().umount2(os.fsencode(path), MNT_DETACH), str(path))

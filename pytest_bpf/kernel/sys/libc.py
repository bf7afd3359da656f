"""The C library, loaded once: what Python lacks of it, and its errors as `OSError`."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_ulong, c_void_p
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLONE_FS, CLONE_NEWNS, CLONE_NEWNET = 0x200, 0x20000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1


@cache
def library() -> ctypes.CDLL:
    """Return the C library."""
    loaded = ctypes.CDLL(None, use_errno=True)
    loaded.mount.argtypes = (c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
    loaded.fdopen.restype, loaded.fdopen.argtypes = c_void_p, (c_int, c_char_p)
    loaded.ferror.argtypes = loaded.fclose.argtypes = (c_void_p,)
    return loaded


def check(result: int, call: str) -> int:
    """Return the ``result`` of a call; raise `OSError` with its code when it is negative."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), call)
    return result


def unshare(flags: int) -> None:
    """Give the calling thread its own namespaces (``unshare(2)``); raise `OSError`."""
    check(library().unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Move the calling thread into a namespace (``setns(2)``); raise `OSError`."""
    check(library().setns(descriptor, flags), "setns")


def mount(kind: str, path: Path, flags: int = 0, options: str = "") -> None:
    """Mount a file system without a device, such as ``"bpf"``, on ``path``; raise `OSError`."""
    name = kind.encode()
    target = os.fsencode(path)
    check(library().mount(name, target, name, flags, options.encode()), str(path))


def bind_mount(source: Path, path: Path) -> None:
    """Show the directory ``source`` on ``path``, too; raise `OSError`."""
    places = os.fsencode(source), os.fsencode(path)
    check(library().mount(*places, None, MS_BIND, None), str(path))


def make_mounts_private() -> None:
    """Keep later mounts of the calling thread's mount namespace to itself; raise `OSError`."""
    check(library().mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "/")


def unmount(path: Path) -> None:
    """Take away what is mounted on ``path``, at once even when it is in use; raise `OSError`."""
    check(library().umount2(os.fsencode(path), MNT_DETACH), str(path))


def death_signal() -> Callable[[int], None]:
    """Return what has the calling process get a signal when the thread that made it ends.

    For a child just after ``fork``, where nothing can be loaded any more: call this before.
    """
    prctl = library().prctl

    def bind(number: int) -> None:
        prctl(PR_SET_PDEATHSIG, number)

    return bind


def syscall(number: int, name: str, *arguments: object) -> int:
    """Make a system call by its ``number``; return what it returns, raise `OSError`."""
    return check(int(library().syscall(number, *arguments)), name)

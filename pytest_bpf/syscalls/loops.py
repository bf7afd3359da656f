"""The loops behind `Syscalls`: each makes ``count`` system calls of its kind, returns the failures.

What else a loop needs (making a file, closing what it opened) is other system calls. The numbers
are x86-64's (``asm/unistd_64.h``); other machines have their own.
"""

from __future__ import annotations

import mmap as mapping
import os
import socket
import threading
from itertools import repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DISCARD = ("127.0.0.1", 9)
"""Where `connect` connects to: the discard service's port, at which nothing need listen."""

TRUE = "/bin/true"
"""What `execve` executes."""

WRITTEN_OVER = 1 << 20
"""Bytes after which `write` starts at the file's beginning again."""


def read(count: int, size: int = 64) -> int:
    """``read`` (0) of ``size`` zero bytes of a memory file."""
    fd = os.memfd_create("bpf-read", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, count * size)
        return failures(count, lambda: os.read(fd, size))
    finally:
        os.close(fd)


def write(count: int, size: int = 64) -> int:
    """``write`` (1) of ``size`` bytes to a memory file of at most a mebibyte, or one call."""
    fd = os.memfd_create("bpf-write", os.MFD_CLOEXEC)
    data = bytes(size)
    chunk = max(1, WRITTEN_OVER // max(size, 1))
    failed = 0
    try:
        for done in range(0, count, chunk):
            os.lseek(fd, 0, os.SEEK_SET)
            failed += failures(min(chunk, count - done), lambda: os.write(fd, data))
    finally:
        os.close(fd)
    return failed


def openat(count: int) -> int:
    """``openat`` (257) of a memory file by its path in ``/proc``; each is closed again."""
    fd = os.memfd_create("bpf-openat", os.MFD_CLOEXEC)
    path = f"/proc/self/fd/{fd}"
    try:
        return failures(count, lambda: os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
    finally:
        os.close(fd)


def connect(count: int) -> int:
    """``connect`` (42) of one UDP socket to loopback: hooks see it, no packet leaves."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return failures(count, lambda: sender.connect(DISCARD))


def getpid(count: int) -> int:
    """``getpid`` (39), which the C library passes on to the kernel every time."""
    return failures(count, os.getpid)


def clone(count: int) -> int:
    """``clone3`` (435; ``clone``, 56, before glibc 2.34): joined threads that do nothing."""

    def start() -> None:
        thread = threading.Thread(target=_nothing)
        thread.start()
        thread.join()

    return failures(count, start)


def execve(count: int) -> int:
    """``execve`` (59) of `TRUE` in a child (``posix_spawn``), awaited; it sees no environment."""

    def spawn() -> None:
        child = os.posix_spawn(TRUE, [TRUE], {})
        _, status = os.waitpid(child, 0)
        if status:
            raise OSError(f"{TRUE} ended with status {status}")

    return failures(count, spawn)


def mmap(count: int, size: int = mapping.PAGESIZE) -> int:
    """``mmap`` (9) of ``size`` bytes of private anonymous memory, untouched; unmapped at once."""
    anonymous = mapping.MAP_PRIVATE | mapping.MAP_ANONYMOUS
    return failures(count, lambda: mapping.mmap(-1, size, flags=anonymous).close())


def failures(count: int, call: Callable[[], object]) -> int:
    """Call ``call`` ``count`` times; return how often it was refused."""
    failed = 0
    for _ in repeat(None, count):
        try:
            call()
        except (OSError, RuntimeError):
            failed += 1
    return failed


def _nothing() -> None:
    """Do what a thread does that only exists."""


LOOPS: dict[str, Callable[[int], int]] = {
    "read": read,
    "write": write,
    "openat": openat,
    "connect": connect,
    "getpid": getpid,
    "clone": clone,
    "execve": execve,
    "mmap": mmap,
}
"""Every loop by its name."""

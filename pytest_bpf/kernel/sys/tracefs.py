"""tracefs for who needs it, without mounting anything on the host.

Attaching to a tracepoint needs its number, which only tracefs tells. Where tracefs is not mounted,
a thread unshares its mount namespace, mounts it there, and runs what needs it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.sys import libc

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
"""Where tracefs may be mounted, in the order in which it is looked for."""

_lock = Lock()
_threads: dict[int, ThreadPoolExecutor] = {}
"""The thread that sees tracefs, by process id: a forked child has none."""


def tracefs() -> Path | None:
    """Return the folder where this thread sees tracefs mounted, or None."""
    return next((path for path in TRACEFS if os.access(path / "events", os.F_OK)), None)


def with_tracefs(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` where tracefs is visible, and return its result; exceptions come back.

    It runs in the calling thread when tracefs is mounted. Otherwise it runs in the one thread of
    this process that has a mount namespace of its own, in the process's network namespace: it must
    use no relative paths there, and collect libbpf's messages (``libbpf.messages()``) inside.
    Raises `UnavailableError` when tracefs cannot be mounted.
    """
    if tracefs():
        return function(*args, **kwargs)
    return _thread().submit(function, *args, **kwargs).result()


def _thread() -> ThreadPoolExecutor:
    with _lock:
        thread = _threads.get(os.getpid())
        if thread is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="pytest-bpf-tracefs")
            try:
                thread.submit(_mount_privately).result()
            except BaseException:
                thread.shutdown()
                raise
            _threads[os.getpid()] = thread
        return thread


def _mount_privately() -> None:
    """Mount tracefs for the calling thread alone; the mount goes when the thread does.

    The thread leaves the network namespace in which it was born, which it would keep alive.
    """
    network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(network, libc.CLONE_NEWNET)
        libc.unshare(libc.CLONE_NEWNS | libc.CLONE_FS)
        libc.make_mounts_private()
        libc.mount("tracefs", TRACEFS[0])
    except OSError as error:
        raise UnavailableError(_refusal(error.errno or 0)) from None
    finally:
        os.close(network)


def _refusal(code: int) -> str:
    if code in {1, 13}:
        return "needs CAP_SYS_ADMIN to mount tracefs in a private mount namespace; run as root"
    return (
        f"tracefs cannot be mounted on {TRACEFS[0]} ({os.strerror(code)}); "
        "it needs CONFIG_TRACING=y and /sys mounted"
    )

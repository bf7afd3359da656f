"""Processes: forks, the wait for an end, an orderly end of one's own; and those of a test.

These never outlive it: they are started to die with it, and ended for certain.
"""

from __future__ import annotations

import atexit
import gc
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import PlaceError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

PATIENCE = 5.0
"""Seconds to wait for a killed process to be gone."""


def fork() -> int:
    """Fork (``fork(2)``), and return the child's id, or 0 in the child.

    Since 3.12 Python warns where there are other threads, which may hold locks. The children of
    this package take none of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def ends(pidfd: int, seconds: float) -> bool:
    """Wait at most ``seconds`` for the end of a process, and say whether it came."""
    end = select.poll()
    end.register(pidfd, select.POLLIN)
    return bool(end.poll(max(0.0, seconds) * 1000))


def leave(status: int, end: Callable[[int], object] = os._exit) -> NoReturn:
    """End this process as Python does, but for freeing memory, which is slow and has no effect.

    Threads are waited for, what `atexit` knows is done, output is written. A negative status is
    the signal to end by, as `subprocess` has it. ``end`` is called with the exit status, last.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (what Python does
        atexit._run_exitfuncs()  # noqa: SLF001  at its end, and has no other name)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # nobody reads it any more, or the program closed it
                status = status or 120
        if status < 0:
            signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
    finally:
        try:
            end(status & 0xFF)
        finally:
            os._exit(status & 0xFF)


def end_quickly() -> None:
    """Let Python end without a last look for circles of objects: all memory is freed anyway.

    That look takes as long as all else that follows the last test.
    """
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


def spawn(command: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
    """Start ``command`` so that it is killed when the calling *thread* ends (``prctl(2)``).

    ``kwargs`` are those of `subprocess.Popen`, without ``shell``. Raises `PlaceError` when there
    is no such command, `UnavailableError` without util-linux's ``setpriv``.
    """
    if isinstance(command, str) or kwargs.get("shell"):
        raise PlaceError(f"a command is a list of words, not one string for a shell: {command!r}")
    words = [os.fspath(word) for word in command]
    environment = kwargs.get("env")
    path = None if environment is None else environment.get("PATH", os.defpath)
    if not words or not shutil.which(words[0], path=path):
        raise PlaceError(f"cannot start {words[:1]}: there is no such command on PATH")
    setpriv = shutil.which("setpriv")
    if not setpriv:
        raise UnavailableError("processes in a place need setpriv; install util-linux")
    return subprocess.Popen([setpriv, "--pdeathsig", "KILL", "--", *words], **kwargs)


class Children:
    """The processes that were started in a place."""

    def __init__(self) -> None:
        self.used = False
        self._lock = threading.Lock()
        self._started: list[subprocess.Popen[Any]] = []

    def start(self, command: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start and remember ``command``; see `spawn`."""
        with self._lock:
            self._started = [child for child in self._started if child.poll() is None]
            child = spawn(command, **kwargs)
            self._started.append(child)
            self.used = True
            return child

    def end(self) -> None:
        """Kill those still running, reap them, close their pipes."""
        for child in self._started:
            child.kill()
        while self._started:
            child = self._started.pop()
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe:
                    with suppress(OSError):
                        pipe.close()


def kill(pids: Iterable[int]) -> None:
    """Kill processes and wait until they are gone; those that are gone already do not matter."""
    handles = [handle for pid in pids if (handle := _open(pid)) is not None]
    try:
        for handle in handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        for handle in handles:
            ends(handle, PATIENCE)
    finally:
        for handle in handles:
            os.close(handle)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def pids_in_network(inode: int) -> list[int]:
    """Return the processes whose network namespace has this inode number."""
    link = f"net:[{inode}]"
    children = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if os.readlink(f"/proc/{entry.name}/ns/net") == link:  # noqa: PTH115 - not a path
                    children.append(int(entry.name))
    return children

"""An attempt in a child process, where a crash does no harm.

Only how the child ended counts. A crash that needs a fresh process to show, or an old one, shows;
what the child survived is remembered.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, LoadError
from pytest_bpf.kernel.sys import libc, processes
from pytest_bpf.kernel.sys.memory import available_memory, enter, memory_cgroup

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

TIME_LIMIT = 60.0
"""Seconds until a child that neither ends nor dies is given up."""

KILL_LIMIT = 5.0
"""Seconds to wait for the end of a child that was killed."""

DONE = 0
"""How a child exits that did it, whatever libbpf answered."""

STOPPED = 1
"""How a child exits that an error of ours stopped before that."""

_survivors: set[Hashable] = set()


def survive(path: Path, key: Hashable, attempt: Callable[[], object]) -> None:
    """Return once a child has lived through ``attempt``, now or before for the same ``key``.

    It is tried again where an error of ours ended it. Raises `LoadError` when the child crashed or
    hung.
    """
    if key in _survivors:
        return
    status = _status(attempt)
    if status is None:
        raise LoadError(
            f"{path}: libbpf did not finish opening it within {TIME_LIMIT:g} s; "
            "the object is damaged, compile it again"
        )
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        raise LoadError(
            f"{path}: a process of its own was killed while libbpf had it open: it took more than "
            "half of the available memory; the object is damaged, compile it again"
        )
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise LoadError(
            f"{path}: is damaged: libbpf crashes on it ({name}, in a process of its own); "
            "compile it again"
        )
    if os.waitstatus_to_exitcode(status) == DONE:
        _survivors.add(key)


def _status(attempt: Callable[[], object]) -> int | None:
    """Return the wait status of a child that did it, None when it had to be killed.

    It may take half of the available memory, where a memory cgroup can be made. What the kernel
    does not let go of after a kill is not waited for.
    """
    with memory_cgroup(available_memory() // 2) as group:
        child = processes.fork()
        if child == 0:
            _be_the_child(attempt, group)
        try:
            pidfd = os.pidfd_open(child)
        except BaseException:
            _kill(child)
            os.waitpid(child, 0)
            raise
        try:
            if processes.ends(pidfd, TIME_LIMIT):
                return os.waitpid(child, 0)[1]
        finally:
            if _is_child(child):
                _kill(child)
                if processes.ends(pidfd, KILL_LIMIT):
                    os.waitpid(child, 0)
            os.close(pidfd)
    return None


def _is_child(pid: int) -> bool:
    """Say whether a process is a child that nobody has waited for."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _kill(child: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def _be_the_child(attempt: Callable[[], object], group: Path | None) -> None:
    """Do it and be gone: no finalizer, no handler and no output of the parent's runs here."""
    code = STOPPED
    try:
        gc.disable()
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        libc.death_signal()(signal.SIGKILL)
        if group is not None:
            enter(group)
        with suppress(BpfError, OSError):
            attempt()
            code = DONE
    finally:
        os._exit(code)

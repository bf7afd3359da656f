"""A first opening of an untrusted object where a crash is survivable: in a process of its own.

libbpf 1.1 itself dies on some damaged objects. An object that was not compiled here is therefore
opened and loaded once in a forked child, which does exactly what this process is about to do, from
the same state; only how the child ended counts. A crash that needs a fresh process to show, or an
old one, shows; what the child survived is remembered.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import resource
import select
import signal
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

TIME_LIMIT = 60.0
"""Seconds until a child that neither ends nor dies is given up."""

_PR_SET_PDEATHSIG = 1
_survived: set[Hashable] = set()


def survive(path: Path, what: Hashable, attempt: Callable[[], object]) -> None:
    """Return once a child has lived through ``attempt``, now or before for the same ``what``.

    Raises `LoadError` when the child crashed or hung.
    """
    if what in _survived:
        return
    status = _status(attempt)
    if status is None:
        raise LoadError(
            f"{path}: libbpf did not finish opening it within {TIME_LIMIT:g} s; "
            "the object is damaged, compile it again"
        )
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise LoadError(
            f"{path}: is damaged: libbpf crashes on it ({name}, in a process of its own); "
            "compile it again"
        )
    _survived.add(what)


def _status(attempt: Callable[[], object]) -> int | None:
    """Return the wait status of a child that did it, None when it had to be killed."""
    with warnings.catch_warnings():
        # Since 3.12 Python warns that other threads may hold locks: the child takes none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _be_the_child(attempt)
    try:
        pidfd = os.pidfd_open(child)
        try:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            if not ended.poll(TIME_LIMIT * 1000):
                return None
        finally:
            os.close(pidfd)
        return os.waitpid(child, 0)[1]
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _be_the_child(attempt: Callable[[], object]) -> None:
    """Do it and be gone: no finalizer, no handler and no output of the parent's runs here."""
    try:
        gc.disable()
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(BpfError):
            attempt()
    finally:
        os._exit(0)

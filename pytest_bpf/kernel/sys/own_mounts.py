"""Start a process with mounts of its own: tracefs, and a directory of pins."""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_bpf.errors import PrivilegeError, UnavailableError
from pytest_bpf.kernel.sys import libc
from pytest_bpf.kernel.sys.bpffs import USUAL
from pytest_bpf.kernel.sys.tracefs import TRACEFS
from pytest_bpf.kernel.sys.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MOUNTS = (("tracefs", TRACEFS[0]), ("debugfs", Path("/sys/kernel/debug")))
"""What shows the events of `TRACEFS`, in its order."""


def own_mounts(pins: Path | None = None) -> None:
    """Let what this thread starts see tracefs in both of its places.

    With ``pins``, that directory is /sys/fs/bpf there. Where something has to be mounted, the
    calling thread gets a mount namespace, which its children have from it, and nobody else. Raises
    `UnavailableError` where that cannot be made; where there is no tracefs, they do without.
    """
    missing = [not os.access(path / "events", os.F_OK) for path in TRACEFS]
    if pins is None and not any(missing):
        return
    try:
        libc.unshare(libc.CLONE_NEWNS | libc.CLONE_FS)
        libc.make_mounts_private()
        if pins is not None:
            libc.bind_mount(pins, USUAL)
    except OSError as error:
        if error.errno == errno.EPERM:
            action = "starting a command with mounts of its own"
            raise PrivilegeError(action, "CAP_SYS_ADMIN", remedy="run as root") from error
        raise UnavailableError(f"a command cannot have mounts of its own: {error}") from error
    for kind, path in itertools.compress(MOUNTS, missing):
        with suppress(OSError):
            libc.mount(kind, path)


def start_with_own_mounts(start: Callable[[], T]) -> T:
    """Call ``start``, which starts a process, in a thread with `own_mounts`."""
    thread = Worker("the mounts of a process")
    try:
        thread.run(own_mounts)
        return thread.run(start)
    finally:
        thread.end()

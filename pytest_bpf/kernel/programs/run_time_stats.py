"""The kernel's run-time statistics: on while somebody measures, and whether they have been on."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pytest_bpf.errors import PrivilegeError, UnavailableError
from pytest_bpf.kernel.programs.load import program
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.info import ProgramInfo, read_info
from pytest_bpf.kernel.sys.libbpf_options import RunOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN_TIME = 0
"""``BPF_STATS_RUN_TIME`` of ``enum bpf_stats_type``."""

_users: list[object] = []
_last = [float("-inf")]
"""The ``time.monotonic()`` at which this process last had statistics on."""


@contextmanager
def statistics() -> Iterator[None]:
    """Let the kernel count and time the runs of every program (``BPF_ENABLE_STATS``, 5.8).

    They are on for the whole machine while any process holds the descriptor, and add about 65 ns
    to each run. Raises `UnavailableError` where the kernel refuses.
    """
    try:
        fd = libbpf.call("bpf_enable_stats", RUN_TIME)
    except PrivilegeError:
        raise
    except OSError as error:
        raise UnavailableError(
            f"the kernel's BPF statistics cannot be switched on: {error.strerror}"
        ) from None
    user = object()
    _users.append(user)
    try:
        yield
    finally:
        _users.remove(user)
        _last[0] = time.monotonic()
        os.close(fd)


class BackgroundStatistics:
    """Statistics that are on while nobody measures, for who looks at run counts later.

    `paused` switches them off: they would be a part of what a measurement sees.
    """

    def __init__(self) -> None:
        self._stack: ExitStack | None = None

    def start(self) -> None:
        """Switch them on, where they are not; raises `UnavailableError` as `statistics` does."""
        if self._stack is None:
            with ExitStack() as stack:
                stack.enter_context(statistics())
                self._stack = stack.pop_all()
            _background.append(self)

    def stop(self) -> None:
        """Switch them off; a second time does nothing."""
        if self._stack is not None:
            _background.remove(self)
            self._stack.close()
            self._stack = None


_background: list[BackgroundStatistics] = []


@contextmanager
def paused() -> Iterator[None]:
    """Switch all background statistics off for a measurement, and on again."""
    several = list(_background)
    for each in several:
        each.stop()
    try:
        yield
    finally:
        for each in several:
            each.start()


def counted_since(moment: float) -> bool:
    """Say whether runs were counted at any time since ``moment`` (``time.monotonic()``).

    Statistics of another process, or of ``kernel.bpf_stats_enabled``, count while they are on: a
    program of our own runs once, and its ``run_cnt`` tells.
    """
    return bool(_users) or _last[0] >= moment or _are_on()


def _are_on() -> bool:
    try:
        with program("socket_filter") as fd:
            options = RunOptions(data_in=bytes(64), data_size_in=64)
            libbpf.call("bpf_prog_test_run_opts", fd, ctypes.byref(options))
            return bool(read_info(fd, ProgramInfo).run_cnt)
    except OSError:
        return False

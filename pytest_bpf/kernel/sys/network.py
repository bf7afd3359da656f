"""Run a function in a network namespace of its own."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from pytest_bpf.errors import PrivilegeError
from pytest_bpf.kernel.sys import libc

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_private_network(function: Callable[[], None]) -> None:
    """Run ``function`` in a network namespace that ends with it; `LO` is the index of its ``lo``.

    Raises what ``function`` raises, `PrivilegeError` without CAP_SYS_ADMIN, and `OSError` when no
    namespace can be made.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            try:
                libc.unshare(libc.CLONE_NEWNET)
            except OSError as error:
                if error.errno == errno.EPERM:
                    raise PrivilegeError("a network namespace", "CAP_SYS_ADMIN") from None
                raise
            function()
        except BaseException as error:  # noqa: BLE001 (it is raised in the caller's thread)
            raised.append(error)

    thread = threading.Thread(target=run, name="pytest-bpf-probe")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


LO = 1
"""The index of the loopback interface of every network namespace."""


def in_namespace(fd: int, function: Callable[[], T]) -> T:
    """Run ``function`` in the network namespace of a descriptor, in a thread of its own.

    Raises what ``function`` raises, and `OSError` when it is no namespace.
    """

    def run() -> T:
        libc.setns(fd, libc.CLONE_NEWNET)
        return function()

    with ThreadPoolExecutor(1, thread_name_prefix="pytest-bpf-netns") as pool:
        return pool.submit(run).result()

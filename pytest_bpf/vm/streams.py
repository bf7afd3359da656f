"""Joining this process's streams to the machine's: bytes, unchanged, each way by a thread."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 16


class Output:
    """Copies what arrives on a socket to a descriptor, and counts it.

    When nobody reads the descriptor any more, ``broken`` is called, and the rest is dropped.
    """

    def __init__(self, source: socket.socket, target: int, broken: Callable[[], None]) -> None:
        self._source = source
        self._target = target
        self._broken = broken
        self._count = 0
        self._over = False
        self._arrived = threading.Condition()
        threading.Thread(target=self._copy, daemon=True).start()

    def wait(self, count: int) -> None:
        """Wait until ``count`` bytes have been copied, or no more can come."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._over or self._count >= count)

    def _copy(self) -> None:
        write = _write
        with suppress(OSError):
            while data := self._source.recv(CHUNK):
                try:
                    write(self._target, data)
                except OSError:
                    write = _drop
                    self._broken()
                self._tell(len(data))
        self._tell(0, over=True)

    def _tell(self, more: int, *, over: bool = False) -> None:
        with self._arrived:
            self._count += more
            self._over = over
            self._arrived.notify_all()


def feed(source: int, target: socket.socket) -> None:
    """Copy a descriptor to a socket until it ends, in a thread that keeps nobody waiting."""

    def copy() -> None:
        with suppress(OSError):
            while data := os.read(source, CHUNK):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    threading.Thread(target=copy, daemon=True).start()


def close(descriptor: int) -> None:
    """Close one of the three standard descriptors; its number stays taken."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def tee(source: int, *targets: int) -> None:
    """Copy a descriptor to others until it ends, in a thread, and close it."""
    copies = [os.dup(target) for target in targets]

    def copy() -> None:
        with suppress(OSError):
            while data := os.read(source, CHUNK):
                for target in copies:
                    _write(target, data)
        for descriptor in (source, *copies):
            os.close(descriptor)

    threading.Thread(target=copy, daemon=True).start()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _drop(descriptor: int, data: bytes) -> None:
    """Take the place of `_write` once nobody reads."""

"""Connections to the controller's loopback, from where that is another machine.

Plugins that tell their workers a port of 127.0.0.1 (pytest-rerunfailures) reach it in a guest or on
another host too: there a socket listens, and what comes goes over the worker's execnet channel.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import execnet

PORTS = ("sock_port",)
"""The keys of ``workerinput`` that are ports: pytest-rerunfailures'."""

LOOPBACK = "127.0.0.1"
CHUNK = 1 << 16


class Relay:
    """One end of a channel that carries connections: ``(number, port's key, bytes)``.

    No bytes are the end of a connection. ``connect`` makes the connection for a key at this end.
    """

    def __init__(
        self, channel: execnet.Channel, connect: Callable[[str], socket.socket] | None = None
    ) -> None:
        self._channel = channel
        self._connect = connect
        self._sockets: dict[int, socket.socket] = {}
        self._numbers = count()
        channel.setcallback(self._receive)

    def listen(self, key: str) -> int:
        """Take connections on a port of this machine, and return the port."""
        server = socket.create_server((LOOPBACK, 0))

        def accept() -> None:
            while True:
                connection, _ = server.accept()
                self._forward(next(self._numbers), key, connection)

        threading.Thread(target=accept, daemon=True).start()
        port: int = server.getsockname()[1]
        return port

    def _receive(self, message: tuple[int, str, bytes]) -> None:
        number, key, data = message
        try:
            if number not in self._sockets and self._connect and data:
                self._forward(number, key, self._connect(key))
            if data and number in self._sockets:
                self._sockets[number].sendall(data)
        except OSError:  # nobody listens any more: the other end is told so
            data = b""
            self._channel.send((number, key, data))
        if not data and number in self._sockets:
            self._sockets.pop(number).close()

    def _forward(self, number: int, key: str, connection: socket.socket) -> None:
        self._sockets[number] = connection

        def copy() -> None:
            with suppress(OSError):
                while data := connection.recv(CHUNK):
                    self._channel.send((number, key, data))
                self._channel.send((number, key, b""))

        threading.Thread(target=copy, daemon=True).start()

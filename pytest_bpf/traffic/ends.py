"""Receiving ends of traffic: sockets that count what they get, and echo it if asked."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

SO_RCVBUFFORCE = 33
"""asm-generic/socket.h: a receive buffer above ``net.core.rmem_max``, with CAP_NET_ADMIN."""

RECEIVE_BUFFER = 1 << 24
"""Bytes a UDP socket may queue: many times what `pace.BURST` can put there."""

DRAIN = 4096
"""Datagrams read in one go: whoever sends without end must not keep the reader for ever."""

LAST_READ = 1.0
"""Seconds that closing a served end may take to read what had arrived."""


def widen(receiver: socket.socket) -> None:
    """Give ``receiver`` room for `RECEIVE_BUFFER` bytes, or for as much as the kernel allows."""
    try:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


class UdpEnd:
    """A bound UDP socket that counts datagrams and, as an echo, sends each one back.

    ``received`` and ``received_bytes`` count what was read; ``address`` and ``port`` say where.
    """

    def __init__(self, bound: socket.socket, *, echo: bool = False) -> None:
        self.socket = bound
        self.address, self.port = bound.getsockname()[:2]
        self.echo = echo
        self.received = 0
        self.received_bytes = 0
        self._buffer = memoryview(bytearray(1 << 16))
        widen(bound)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Let ``selector`` call `drain` when there is something to read."""
        selector.register(self.socket, READ, lambda _: self.drain())

    def drain(self) -> int:
        """Read what is queued, up to `DRAIN` datagrams; return how many there were so far."""
        receive, buffer = self.socket.recvfrom_into, self._buffer
        with suppress(BlockingIOError):
            for _ in range(DRAIN):
                size, sender = receive(buffer, 0, socket.MSG_DONTWAIT)
                self.received += 1
                self.received_bytes += size
                if self.echo:
                    with suppress(OSError):  # a reply that cannot leave is a reply lost
                        self.socket.sendto(buffer[:size], sender)
        return self.received

    def close(self) -> None:
        """Close the socket; the counts stay."""
        self.socket.close()


class TcpEnd:
    """A listening TCP socket that counts connections and bytes and, as an echo, returns them.

    ``connections`` counts those accepted, ``received_bytes`` all they brought, and
    ``bytes_by_connection`` the same for each, in the order of accepting.
    """

    def __init__(self, listening: socket.socket, *, echo: bool = False) -> None:
        self.socket = listening
        self.address, self.port = listening.getsockname()[:2]
        self.echo = echo
        self.bytes_by_connection: list[int] = []
        self._open: set[socket.socket] = set()
        self._buffer = memoryview(bytearray(1 << 18))
        listening.setblocking(False)

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return len(self.bytes_by_connection)

    @property
    def received_bytes(self) -> int:
        """Bytes received so far, over all connections."""
        return sum(self.bytes_by_connection)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Let ``selector`` call back when there is something to accept, read or return."""
        selector.register(self.socket, READ, lambda _: self._accept(selector))

    def close(self) -> None:
        """Close the listener and every connection still open; the counts stay."""
        self.socket.close()
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        with suppress(BlockingIOError, ConnectionError):
            while True:
                connection, _ = self.socket.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(connection)
                self.bytes_by_connection.append(0)
                serve = partial(self._serve, selector, connection, self.connections - 1, [])
                selector.register(connection, READ, serve)

    def _serve(
        self,
        selector: selectors.BaseSelector,
        connection: socket.socket,
        number: int,
        unreturned: list[bytes],
        _events: int,
    ) -> None:
        """Read once, or return what is left to return; nothing is read until that is done."""
        try:
            if not unreturned:
                size = connection.recv_into(self._buffer)
                self.bytes_by_connection[number] += size
                if not size:
                    raise ConnectionResetError  # the sender's end: nothing left to do
                if self.echo:
                    unreturned.append(bytes(self._buffer[:size]))
            if unreturned:
                returned = connection.send(unreturned[0])
                unreturned[:] = [rest] if (rest := unreturned[0][returned:]) else []
        except BlockingIOError:
            pass
        except OSError:
            selector.unregister(connection)
            self._open.discard(connection)
            connection.close()
            return
        selector.modify(
            connection, WRITE if unreturned else READ, selector.get_key(connection).data
        )


def dispatch(selector: selectors.BaseSelector, timeout: float | None) -> bool:
    """Wait for events and hand them to what was registered; say whether there were any."""
    ready = selector.select(timeout)
    for key, events in ready:
        key.data(events)
    return bool(ready)


End = TypeVar("End", bound=UdpEnd | TcpEnd)


@contextmanager
def serve(end: End) -> Iterator[End]:
    """Serve ``end`` by a thread of its own; after the block all that had arrived is counted."""
    stopping = threading.Event()
    with ExitStack() as stack:
        stack.callback(end.close)
        selector = stack.enter_context(selectors.DefaultSelector())
        wake, woken = socket.socketpair()
        stack.callback(wake.close)
        stack.callback(woken.close)

        def serve() -> None:
            while not stopping.is_set():
                dispatch(selector, None)
            selector.unregister(woken)
            deadline = time.monotonic() + LAST_READ
            while dispatch(selector, 0) and time.monotonic() < deadline:
                pass

        selector.register(woken, READ, lambda _: woken.recv(1))
        end.register(selector)
        thread = threading.Thread(target=serve, name=f"bpf-end-{end.port}")
        thread.start()
        try:
            yield end
        finally:
            stopping.set()
            wake.send(b"x")
            thread.join()

"""Requests over TCP, one after another, each of which waits for its answer."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.traffic.ends import READ, WRITE, dispatch
from pytest_bpf.traffic.pace import wait_until
from pytest_bpf.traffic.result import Refusals, TrafficResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.traffic.ends import TcpEnd


class Client:
    """One connection's asking side; the other end is served by the same ``selector``."""

    def __init__(self, sender: socket.socket, selector: selectors.BaseSelector) -> None:
        self.socket = sender
        self._selector = selector
        self._buffer = bytearray(1 << 18)
        sender.setblocking(False)
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self, address: tuple[str, int], timeout: float) -> float:
        """Return the seconds until the connection is there; raise `OSError`."""
        begin = time.perf_counter()
        code = self.socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        ready: list[int] = []
        self._selector.register(self.socket, WRITE, ready.append)
        while not ready:
            self._dispatch(begin + timeout)
        taken = time.perf_counter() - begin
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self._selector.modify(self.socket, READ, ready.append)
        return taken

    def ask(self, payload: bytes, timeout: float) -> float:
        """Return the seconds until all of the answer is there; raise `OSError`."""
        unsent, missing = memoryview(payload), len(payload)
        begin = time.perf_counter()
        while missing:
            if unsent:
                with suppress(BlockingIOError):
                    unsent = unsent[self.socket.send(unsent) :]
            try:
                size = self.socket.recv_into(self._buffer)
                if not size:
                    raise ConnectionResetError(errno.ECONNRESET, "the other end has closed")
                missing -= size
            except BlockingIOError:
                self._dispatch(begin + timeout)
        return time.perf_counter() - begin

    def _dispatch(self, until: float) -> None:
        rest = until - time.perf_counter()
        if rest <= 0 or not dispatch(self._selector, rest):
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def leave(self) -> None:
        """Take the connection out of the selector."""
        if self.socket in self._selector.get_map():
            self._selector.unregister(self.socket)


def ask(  # noqa: PLR0917 (as of `udp.ask`)
    senders: Sequence[socket.socket],
    end: TcpEnd,
    payload: bytes,
    count: int,
    timeout: float,
    rate: float | None = None,
) -> TrafficResult:
    """Connect every sender, and send ``count`` requests over them in turn.

    One thread serves both ends, so that no time is the scheduler's. A connection that failed, or
    that left a request without its answer for ``timeout`` seconds, is not used any more.
    """
    address = (end.address, end.port)
    action = f"connecting by TCP to {address[0]} port {address[1]}"
    refusals, rtts, handshakes = Refusals(), [], []
    clients: deque[Client] = deque()
    sent = 0
    with selectors.DefaultSelector() as selector:
        end.register(selector)
        for sender in senders:
            client = Client(sender, selector)
            try:
                handshakes.append(client.connect(address, timeout))
                clients.append(client)
            except OSError as error:
                client.leave()
                refusals.add(error, action)
        begin = latest = time.perf_counter()
        while sent < count and clients:
            if rate is not None:
                wait_until(begin + sent / rate)
            client = clients.popleft()
            sent += 1
            try:
                rtts.append(client.ask(payload, timeout))
                clients.append(client)
            except OSError as error:
                client.leave()
                refusals.add(error, action)
            latest = time.perf_counter()
    return TrafficResult(
        sent=count,
        received=len(rtts),
        bytes=sent * len(payload),
        received_bytes=len(rtts) * len(payload),
        seconds=latest - begin,
        errors=dict(refusals),
        connections=len(handshakes),
        rtts=tuple(rtts),
        handshakes=tuple(handshakes),
    )

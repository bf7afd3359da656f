"""TCP: connections opened together, messages written in turn, until both ends have closed."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from typing import TYPE_CHECKING

from pytest_bpf.traffic.ends import READ, WRITE, dispatch
from pytest_bpf.traffic.result import Refusals, TrafficResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.traffic.ends import TcpEnd

WRITES = 64
"""Messages written to one connection before the others have their turn."""


class Connection:
    """One connection's sending side: ``messages`` of the same ``payload``, then its end.

    It is ``done`` when the other end has closed too, which it does after its last byte, or when
    the connection failed (``error``).
    """

    def __init__(self, sender: socket.socket, payload: bytes, messages: int) -> None:
        self.socket = sender
        self.payload = memoryview(payload)
        self.unsent = len(payload) * messages
        self.sent_bytes = 0
        self.received_bytes = 0
        self.established = False
        self.done = False
        self.error: OSError | None = None
        self._buffer = bytearray(1 << 18)

    def connect(self, address: tuple[str, int], selector: selectors.BaseSelector) -> None:
        """Start connecting; the rest happens as ``selector`` reports events."""
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self.socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._finish(OSError(code, os.strerror(code)))
            return
        selector.register(self.socket, READ | WRITE, lambda events: self._ready(selector, events))

    def _ready(self, selector: selectors.BaseSelector, events: int) -> None:
        try:
            if not self.established:
                self._establish()
            if events & READ:
                self._read()
            if events & WRITE and not self.done and self._write():
                selector.modify(self.socket, READ, selector.get_key(self.socket).data)
        except BlockingIOError:
            pass
        except OSError as error:
            self._finish(error)
        if self.done:
            selector.unregister(self.socket)

    def _establish(self) -> None:
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self.established = True

    def _read(self) -> None:
        size = self.socket.recv_into(self._buffer)
        self.received_bytes += size
        if not size:
            self._finish(None)

    def _write(self) -> bool:
        """Write some messages, one ``send`` each; say whether that was the last."""
        for _ in range(WRITES):
            if not self.unsent:
                self.socket.shutdown(socket.SHUT_WR)
                return True
            size = self.socket.send(self.payload[self.sent_bytes % len(self.payload) :])
            self.sent_bytes += size
            self.unsent -= size
        return False

    def _finish(self, error: OSError | None) -> None:
        self.done = True
        self.error = error


def exchange(
    senders: Sequence[socket.socket],
    end: TcpEnd,
    payload: bytes,
    count: int,
    timeout: float,
) -> TrafficResult:
    """Connect every sender to ``end`` and write ``count`` messages, spread evenly over them.

    Ends when everything has arrived and both sides have closed, or after ``timeout`` seconds in
    which nothing happened. With an echoing end the messages that came back are counted.
    """
    address = (end.address, end.port)
    share, extra = divmod(count, len(senders))
    flows = [Connection(s, payload, share + (n < extra)) for n, s in enumerate(senders)]
    refusals = Refusals()
    action = f"connecting by TCP to {address[0]} port {address[1]}"
    start = latest = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        end.register(selector)
        for flow in flows:
            flow.connect(address, selector)
        while not all(flow.done for flow in flows) and dispatch(selector, timeout):
            latest = time.perf_counter()
    for flow in flows:
        if flow.error:
            refusals.add(flow.error, action)
        elif not flow.done:
            refusals[errno.errorcode[errno.ETIMEDOUT]] += 1
    arrived = [f.received_bytes for f in flows] if end.echo else end.bytes_by_connection
    return TrafficResult(
        sent=count,
        received=sum(size // len(payload) for size in arrived),
        bytes=sum(flow.sent_bytes for flow in flows),
        received_bytes=sum(arrived),
        seconds=latest - start,
        errors=dict(refusals),
        connections=sum(flow.established for flow in flows),
    )

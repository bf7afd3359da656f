"""The receiving ends of a test's own: sockets that listen, connected pairs, servers."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, overload

from pytest_bpf.errors import StimulusError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.traffic.arguments import check_places
from pytest_bpf.traffic.ends import TcpEnd, UdpEnd, serve
from pytest_bpf.traffic.sockets import destination, open_receiver, open_sender

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from pytest_bpf.traffic.endpoint import Endpoint, Place

CONNECT_TIMEOUT = 5.0
"""Seconds that a connection may take, and after which its sockets stop waiting."""


@checked_methods
class Servers:
    """Makes sockets and servers of ``endpoint``, a network namespace."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def listen_tcp(
        self, port: int = 0, *, ipv6: bool = False, cgroup: Place | None = None
    ) -> socket.socket:
        """Return a TCP socket that listens at the endpoint's own address; the caller closes it."""
        return self._receiving(socket.SOCK_STREAM, self.endpoint, port, ipv6, cgroup)

    @contextmanager
    def tcp_pair(
        self, *, to: Endpoint | None = None, port: int = 0, ipv6: bool = False
    ) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Give the two sockets of one TCP connection, this end's and the other one's.

        Both are closed after the block. They go into a sockmap as they are.
        """
        check_places("tcp_pair", to)
        with (
            self._receiving(socket.SOCK_STREAM, to, port, ipv6, None) as listening,
            open_sender(self.endpoint, socket.SOCK_STREAM, ipv6=ipv6) as near,
        ):
            listening.settimeout(CONNECT_TIMEOUT)
            near.settimeout(CONNECT_TIMEOUT)
            try:
                near.connect(listening.getsockname()[:2])
                far, _ = listening.accept()
            except OSError as error:
                raise StimulusError(
                    f"tcp_pair: {self.endpoint.name} cannot connect: {error.strerror or error}"
                ) from error
            with far:
                far.settimeout(CONNECT_TIMEOUT)
                yield near, far

    @overload
    def sink(
        self,
        protocol: Literal["udp"],
        port: int = 0,
        *,
        ipv6: bool = False,
        cgroup: Place | None = None,
    ) -> AbstractContextManager[UdpEnd]: ...
    @overload
    def sink(
        self,
        protocol: Literal["tcp"],
        port: int = 0,
        *,
        ipv6: bool = False,
        cgroup: Place | None = None,
    ) -> AbstractContextManager[TcpEnd]: ...
    def sink(
        self, protocol: str, port: int = 0, *, ipv6: bool = False, cgroup: Place | None = None
    ) -> AbstractContextManager[UdpEnd | TcpEnd]:
        """Serve a port of the endpoint's own address by a thread: read and count, answer nothing.

        For tests that have a client of their own. The end's counts are exact after the block.
        """
        return self._serving(protocol, port, cgroup, echo=False, ipv6=ipv6)

    @overload
    def echo(
        self,
        protocol: Literal["udp"],
        port: int = 0,
        *,
        ipv6: bool = False,
        cgroup: Place | None = None,
    ) -> AbstractContextManager[UdpEnd]: ...
    @overload
    def echo(
        self,
        protocol: Literal["tcp"],
        port: int = 0,
        *,
        ipv6: bool = False,
        cgroup: Place | None = None,
    ) -> AbstractContextManager[TcpEnd]: ...
    def echo(
        self, protocol: str, port: int = 0, *, ipv6: bool = False, cgroup: Place | None = None
    ) -> AbstractContextManager[UdpEnd | TcpEnd]:
        """Serve a port as `sink` does, and send everything back."""
        return self._serving(protocol, port, cgroup, echo=True, ipv6=ipv6)

    @contextmanager
    def _serving(
        self, protocol: str, port: int, cgroup: Place | None, *, echo: bool, ipv6: bool
    ) -> Iterator[UdpEnd | TcpEnd]:
        check_places("sink", None, cgroup)
        if not isinstance(protocol, str) or protocol not in ENDS:
            raise StimulusError(f"there is no {protocol!r} end; there are: {', '.join(ENDS)}")
        kind, make = ENDS[protocol]
        bound = self._receiving(kind, self.endpoint, port, ipv6, cgroup)
        with serve(make(bound, echo=echo)) as end:
            yield end

    def _receiving(
        self, kind: int, to: Endpoint | None, port: int, ipv6: bool, cgroup: Place | None
    ) -> socket.socket:
        address = destination(to, ipv6=ipv6)
        return open_receiver(to or self.endpoint, kind, address, port, ipv6=ipv6, cgroup=cgroup)


ENDS: dict[str, tuple[int, type[UdpEnd | TcpEnd]]] = {
    "udp": (socket.SOCK_DGRAM, UdpEnd),
    "tcp": (socket.SOCK_STREAM, TcpEnd),
}
"""The kind of socket and the receiving end of each protocol that can be served."""

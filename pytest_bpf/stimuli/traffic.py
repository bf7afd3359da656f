"""Traffic from one endpoint to another, as plain calls that return what came of it."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Literal, overload

from pytest_bpf.errors import StimulusError
from pytest_bpf.stimuli import flood, frames, icmp, tcp, udp
from pytest_bpf.stimuli.ends import TcpEnd, UdpEnd, served
from pytest_bpf.stimuli.pace import silence
from pytest_bpf.stimuli.sent import Sent, within
from pytest_bpf.stimuli.sockets import address_of, receiving, sending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from pytest_bpf.stimuli.endpoint import Endpoint, Runs

LARGEST_DATAGRAM = {False: 65507, True: 65527}
"""Bytes of payload in one UDP datagram or ICMP echo, by ``ipv6``."""


class Traffic:
    """Sends traffic from ``endpoint``, a network namespace.

    Every call makes the receiving end in ``to`` (by default the endpoint itself, over loopback)
    on sockets of its own, returns a `Sent`, and leaves nothing open. ``port`` 0 is any free one.
    ``payload`` is what each message says; without it, ``size`` zero bytes. ``cgroup`` and
    ``to_cgroup`` are the cgroups the sender's and the receiver's sockets belong to. ``timeout``
    is the silence, in seconds, after which what is missing counts as lost; without it, 0.05 and
    two round trips of the topology's delay. What is filtered or refused on the way is in the
    value returned; `StimulusError` says what could not be sent at all.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def __repr__(self) -> str:
        return f"Traffic({self.endpoint.name})"

    def udp(
        self,
        *,
        to: Endpoint | None = None,
        port: int = 0,
        size: int = 64,
        count: int = 1,
        payload: bytes | None = None,
        echo: bool = False,
        ipv6: bool = False,
        src_port: int = 0,
        ttl: int | None = None,
        tos: int | None = None,
        cgroup: Runs | None = None,
        to_cgroup: Runs | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send ``count`` datagrams of ``size`` bytes."""
        payload = _payload("udp", size, payload, LARGEST_DATAGRAM[ipv6])
        within("udp: count", count, 0)
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with ExitStack() as stack:
            bound = self._receiving(socket.SOCK_DGRAM, to, port, ipv6, to_cgroup)
            end = stack.enter_context(closing(UdpEnd(bound, echo=echo)))
            sender = stack.enter_context(
                sending(
                    self.endpoint,
                    socket.SOCK_DGRAM,
                    src_port=src_port,
                    ttl=ttl,
                    tos=tos,
                    ipv6=ipv6,
                    cgroup=cgroup,
                )
            )
            return udp.exchange(sender, end, payload, count, wait)

    def tcp(
        self,
        *,
        to: Endpoint | None = None,
        port: int = 0,
        size: int = 1024,
        count: int = 1,
        connections: int = 1,
        payload: bytes | None = None,
        echo: bool = False,
        ipv6: bool = False,
        src_port: int = 0,
        ttl: int | None = None,
        tos: int | None = None,
        cgroup: Runs | None = None,
        to_cgroup: Runs | None = None,
        timeout: float = 5,
    ) -> Sent:
        """Write ``count`` messages of ``size`` bytes, one ``send`` each, over ``connections``.

        The connections are opened together and the messages spread evenly over them; with
        ``count=0`` they are only opened and closed. A message counts as received when all its
        bytes arrived. ``timeout`` must outlast TCP's own retransmissions (a second for the
        first SYN) where loss is part of the test; a filtered port is reported sooner with less.
        """
        payload = _payload("tcp", size, payload, None, low=1)
        within("tcp: count", count, 0)
        within("tcp: connections", connections, 1, 1 if src_port else None)
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with ExitStack() as stack:
            listening = self._receiving(socket.SOCK_STREAM, to, port, ipv6, to_cgroup)
            end = stack.enter_context(closing(TcpEnd(listening, echo=echo)))
            senders = [
                stack.enter_context(
                    sending(
                        self.endpoint,
                        socket.SOCK_STREAM,
                        src_port=src_port,
                        ttl=ttl,
                        tos=tos,
                        ipv6=ipv6,
                        cgroup=cgroup,
                    )
                )
                for _ in range(connections)
            ]
            return tcp.exchange(senders, end, payload, count, wait.final)

    def ping(
        self,
        *,
        to: Endpoint | None = None,
        count: int = 1,
        size: int = 56,
        ipv6: bool = False,
        ttl: int | None = None,
        tos: int | None = None,
        cgroup: Runs | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send ``count`` ICMP echo requests with ``size`` bytes; ``rtts`` has the round trips."""
        payload = _payload("ping", size, None, LARGEST_DATAGRAM[ipv6])
        within("ping: count", count, 0, 65536)
        protocol = socket.IPPROTO_ICMPV6 if ipv6 else socket.IPPROTO_ICMP
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with sending(
            self.endpoint,
            socket.SOCK_RAW,
            protocol=protocol,
            ttl=ttl,
            tos=tos,
            ipv6=ipv6,
            cgroup=cgroup,
        ) as sender:
            return icmp.exchange(sender, address_of(to, ipv6=ipv6), payload, count, wait)

    def frames(
        self,
        frame: bytes,
        *,
        count: int = 1,
        iface: str | None = None,
        to: Endpoint | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send a raw Ethernet ``frame`` from ``iface`` (by default the endpoint's first one).

        With ``to``, frames that reach its stack as they were sent are counted: behind XDP, before
        tc (see `frames.Tap`). Without ``to`` nobody counts, and ``received`` stays 0.
        """
        _check_frames(frame, count)
        name = iface or self.endpoint.iface.name
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with ExitStack() as stack:
            tap = None
            if to is not None:
                arriving = name if to is self.endpoint else to.iface.name
                tap = stack.enter_context(closing(frames.Tap(to, arriving, frame)))
            sender = stack.enter_context(self.endpoint.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            try:
                sender.bind((name, 0))
            except OSError as error:
                raise StimulusError(
                    f"{self.endpoint.name}: frames cannot be sent from {name}: {error.strerror}"
                ) from error
            return frames.exchange(sender, tap, frame, count, wait)

    def flood(
        self,
        frame: bytes,
        *,
        count: int,
        to: Endpoint | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Let the kernel transmit ``frame`` ``count`` times, millions a second, in one call.

        The frames leave from the endpoint's first interface, a veth whose peer must be up and
        polling: with a native XDP program attached, or with GRO on. ``to`` is the endpoint
        of that peer: its GRO is on during the call, and frames that reach its stack unchanged are
        counted as by `frames`. Raises `UnavailableError` before Linux 5.18.
        """
        _check_frames(frame, count)
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        return flood.flood(self.endpoint, frame, count, to, wait)

    def listen_tcp(
        self, port: int = 0, *, ipv6: bool = False, cgroup: Runs | None = None
    ) -> socket.socket:
        """Return a TCP socket that listens at the endpoint's own address; the caller closes it."""
        return self._receiving(socket.SOCK_STREAM, self.endpoint, port, ipv6, cgroup)

    @overload
    def sink(
        self,
        protocol: Literal["udp"],
        port: int = 0,
        *,
        ipv6: bool = False,
        cgroup: Runs | None = None,
    ) -> AbstractContextManager[UdpEnd]: ...
    @overload
    def sink(
        self,
        protocol: Literal["tcp"],
        port: int = 0,
        *,
        ipv6: bool = False,
        cgroup: Runs | None = None,
    ) -> AbstractContextManager[TcpEnd]: ...
    def sink(
        self, protocol: str, port: int = 0, *, ipv6: bool = False, cgroup: Runs | None = None
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
        cgroup: Runs | None = None,
    ) -> AbstractContextManager[UdpEnd]: ...
    @overload
    def echo(
        self,
        protocol: Literal["tcp"],
        port: int = 0,
        *,
        ipv6: bool = False,
        cgroup: Runs | None = None,
    ) -> AbstractContextManager[TcpEnd]: ...
    def echo(
        self, protocol: str, port: int = 0, *, ipv6: bool = False, cgroup: Runs | None = None
    ) -> AbstractContextManager[UdpEnd | TcpEnd]:
        """Serve a port as `sink` does, and send everything back."""
        return self._serving(protocol, port, cgroup, echo=True, ipv6=ipv6)

    @contextmanager
    def _serving(
        self, protocol: str, port: int, cgroup: Runs | None, *, echo: bool, ipv6: bool
    ) -> Iterator[UdpEnd | TcpEnd]:
        if protocol not in ENDS:
            raise StimulusError(f"there is no {protocol!r} end; there are: {', '.join(ENDS)}")
        kind, make = ENDS[protocol]
        bound = self._receiving(kind, self.endpoint, port, ipv6, cgroup)
        with served(make(bound, echo=echo)) as end:
            yield end

    def _receiving(
        self, kind: int, to: Endpoint | None, port: int, ipv6: bool, cgroup: Runs | None
    ) -> socket.socket:
        address = address_of(to, ipv6=ipv6)
        return receiving(to or self.endpoint, kind, address, port, ipv6=ipv6, cgroup=cgroup)


ENDS: dict[str, tuple[int, type[UdpEnd | TcpEnd]]] = {
    "udp": (socket.SOCK_DGRAM, UdpEnd),
    "tcp": (socket.SOCK_STREAM, TcpEnd),
}
"""The kind of socket and the receiving end of each protocol that can be served."""


def _payload(
    call: str, size: int, payload: bytes | None, largest: int | None, low: int = 0
) -> bytes:
    if payload is not None:
        within(f"{call}: bytes of the payload", len(payload), low, largest)
        return payload
    within(f"{call}: size", size, low, largest)
    return bytes(size)


def _check_frames(frame: bytes, count: int) -> None:
    within("bytes of the frame", len(frame), 14)
    within("count", count, 0, 2**31 - 1)

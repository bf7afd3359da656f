"""Traffic from one endpoint to another, as plain calls that return the result."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import StimulusError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.traffic import flood, frames, icmp, replay, requests, tcp, udp
from pytest_bpf.traffic.arguments import (
    LARGEST_DATAGRAM,
    are_several,
    check_places,
    frame_of,
    payload_of,
)
from pytest_bpf.traffic.capture.ring import Ring
from pytest_bpf.traffic.ends import TcpEnd, UdpEnd
from pytest_bpf.traffic.pace import check_rate, schedule, silence
from pytest_bpf.traffic.result import TrafficResult, check_range
from pytest_bpf.traffic.servers import Servers
from pytest_bpf.traffic.sockets import destination, open_sender

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from pytest_bpf.traffic.endpoint import Endpoint, Place


@checked_methods
class Traffic(Servers):
    """Sends traffic from ``endpoint``, a network namespace.

    Every call makes the receiving end in ``to`` (by default the endpoint itself, over loopback)
    on sockets of its own, returns a `TrafficResult`, and leaves nothing open. ``port`` 0 is any
    free one. ``payload`` is the content of each message; without it, ``size`` zero bytes.
    ``cgroup`` and ``to_cgroup`` are the cgroups of the sender's and of the receiver's sockets.
    A message that does not arrive within ``timeout`` seconds of silence is lost; the default is
    0.05 s plus two round trips of the topology's delay. Messages that are filtered or refused on
    the way are counted in the result; `StimulusError` is raised for what cannot be sent at all.
    """

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
        cgroup: Place | None = None,
        to_cgroup: Place | None = None,
        timeout: float | None = None,
        flows: int = 1,
        rate: float | None = None,
        answers: bool = False,
    ) -> TrafficResult:
        """Send ``count`` datagrams of ``size`` bytes, over ``flows`` sockets in turn.

        ``rate`` is how many are sent a second. With ``answers`` each one waits for its echo, or for
        what a program answers in its place, and ``rtts`` has the round trips.
        """
        check_places("udp", to, cgroup, to_cgroup)
        payload = payload_of("udp", size, payload, LARGEST_DATAGRAM[ipv6], low=1 if answers else 0)
        check_range("udp: count", count, 0)
        check_range("udp: flows", flows, 1, 1 if src_port else None)
        check_rate("udp", rate)
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with ExitStack() as stack:
            bound = self._receiving(socket.SOCK_DGRAM, to, port, ipv6, to_cgroup)
            end = stack.enter_context(closing(UdpEnd(bound, echo=echo or answers)))
            senders = [
                stack.enter_context(
                    open_sender(
                        self.endpoint,
                        socket.SOCK_DGRAM,
                        src_port=src_port,
                        ttl=ttl,
                        tos=tos,
                        ipv6=ipv6,
                        cgroup=cgroup,
                    )
                )
                for _ in range(flows)
            ]
            exchange = udp.ask if answers else udp.exchange
            return exchange(senders, end, payload, count, wait, rate)

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
        cgroup: Place | None = None,
        to_cgroup: Place | None = None,
        timeout: float = 5,
        rate: float | None = None,
        answers: bool = False,
    ) -> TrafficResult:
        """Write ``count`` messages of ``size`` bytes, one ``send`` each, over ``connections``.

        The connections are opened together and the messages spread evenly over them; with
        ``count=0`` they are only opened and closed. A message counts as received when all its
        bytes arrived. ``timeout`` must outlast TCP's own retransmissions (a second for the
        first SYN) where loss is part of the test; a filtered port is reported sooner with less.

        With ``answers`` each message is a request that waits for its echo, over the connections in
        turn; ``rtts`` has the round trips and ``handshakes`` how long the connections took.
        ``rate`` is how many requests are sent a second at most.
        """
        check_places("tcp", to, cgroup, to_cgroup)
        payload = payload_of("tcp", size, payload, None, low=1)
        check_range("tcp: count", count, 0)
        check_range("tcp: connections", connections, 1, 1 if src_port else None)
        check_rate("tcp", rate)
        if rate is not None and not answers:
            raise StimulusError("tcp: rate= is of requests; it goes with answers=True")
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with ExitStack() as stack:
            listening = self._receiving(socket.SOCK_STREAM, to, port, ipv6, to_cgroup)
            end = stack.enter_context(closing(TcpEnd(listening, echo=echo or answers)))
            senders = [
                stack.enter_context(
                    open_sender(
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
            if answers:
                return requests.ask(senders, end, payload, count, wait.final, rate)
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
        cgroup: Place | None = None,
        timeout: float | None = None,
    ) -> TrafficResult:
        """Send ``count`` ICMP echo requests with ``size`` bytes; ``rtts`` has the round trips."""
        check_places("ping", to, cgroup)
        payload = payload_of("ping", size, None, LARGEST_DATAGRAM[ipv6])
        check_range("ping: count", count, 0, 65536)
        protocol = socket.IPPROTO_ICMPV6 if ipv6 else socket.IPPROTO_ICMP
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with open_sender(
            self.endpoint,
            socket.SOCK_RAW,
            protocol=protocol,
            ttl=ttl,
            tos=tos,
            ipv6=ipv6,
            cgroup=cgroup,
        ) as sender:
            return icmp.exchange(sender, destination(to, ipv6=ipv6), payload, count, wait)

    def frames(
        self,
        frame: Any,
        *,
        count: int = 1,
        iface: str | None = None,
        to: Endpoint | None = None,
        timeout: float | None = None,
        rate: float | None = None,
    ) -> TrafficResult:
        """Send a raw Ethernet ``frame`` from ``iface`` (by default the endpoint's first one).

        With ``to``, frames that reach its stack as they were sent are counted: behind XDP, before
        tc (see `frames.Tap`). Without ``to`` nobody counts, and ``received`` stays 0. Of a list of
        frames, all are sent in order, ``count`` times. ``rate`` is how many frames are sent a
        second; without it each burst waits for its arrivals.
        """
        check_rate("frames", rate)
        if are_several(frame):
            several = [frame_of(each, count) for each in frame] * count
            return self._replay("frames", several, schedule(len(several), rate), iface, to, timeout)
        check_places("frames", to)
        frame = frame_of(frame, count)
        name = iface or self.endpoint.iface.name
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with ExitStack() as stack:
            tap = None
            if to is not None:
                arriving = name if to is self.endpoint else to.iface.name
                tap = stack.enter_context(closing(frames.Tap(to, arriving, frame)))
            sender = stack.enter_context(replay.open_sender(self.endpoint, name))
            replay.check_mtu(sender, name, [frame])
            return frames.exchange(sender, tap, frame, count, wait, rate)

    def pcap(
        self,
        path: str | os.PathLike[str],
        *,
        to: Endpoint | None = None,
        speed: float | None = None,
        iface: str | None = None,
        timeout: float | None = None,
    ) -> TrafficResult:
        """Send the frames of a recording, a pcap or pcapng file with Ethernet frames.

        ``speed`` 1 keeps its timing and 10 is ten times as fast; without it they are sent as fast
        as possible. ``to`` counts them as of a list in `frames`.
        """
        if speed is not None and not 0 < speed < float("inf"):
            raise StimulusError(f"pcap: speed is {speed!r}; it must be positive, or None")
        try:
            from pytest_bpf.traffic.capture import pcap  # noqa: PLC0415 - by its first user

            recording = pcap.read_recording(Path(path))
        except OSError as error:
            raise StimulusError(f"pcap: {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise StimulusError(f"pcap: {error}") from None
        for number, each in enumerate(recording, start=1):
            if each.length < replay.ETHERNET:
                raise StimulusError(
                    f"pcap: frame {number} of {path} has {each.length} bytes; an Ethernet frame "
                    f"has at least {replay.ETHERNET}"
                )
            if len(each.data) < each.length:
                raise StimulusError(
                    f"pcap: frame {number} of {path} has {len(each.data)} of its {each.length} "
                    "bytes; record it with a larger snapshot length (tcpdump -s 0)"
                )
        first = recording[0].time_ns if recording else 0
        times = [(each.time_ns - first) / 1e9 / speed for each in recording] if speed else []
        return self._replay("pcap", [each.data for each in recording], times, iface, to, timeout)

    def _replay(  # noqa: PLR0917 (all of them, always)
        self,
        call: str,
        several: list[bytes],
        times: Sequence[float],
        iface: str | None,
        to: Endpoint | None,
        timeout: float | None,
    ) -> TrafficResult:
        check_places(call, to)
        name = iface or self.endpoint.iface.name
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        with ExitStack() as stack:
            ring = None
            if to is not None:
                arriving = name if to is self.endpoint else to.iface.name
                ring = stack.enter_context(
                    closing(Ring(to, arriving, "in", replay.RING, replay.MOST))
                )
            sender = stack.enter_context(replay.open_sender(self.endpoint, name))
            replay.check_mtu(sender, name, several)
            return replay.exchange(sender, ring, several, times, wait)

    def flood(
        self,
        frame: Any,
        *,
        count: int,
        to: Endpoint | None = None,
        timeout: float | None = None,
    ) -> TrafficResult:
        """Let the kernel transmit ``frame`` ``count`` times, millions a second, in one call.

        The frames leave from the endpoint's first interface, a veth whose peer must be up and
        polling: with a native XDP program attached, or with GRO on. ``to`` is the endpoint
        of that peer: its GRO is on during the call, and frames that reach its stack unchanged are
        counted as by `frames`. Raises `UnavailableError` before Linux 5.18.
        """
        check_places("flood", to)
        frame = frame_of(frame, count)
        wait = silence(self.endpoint, to or self.endpoint, timeout)
        name = self.endpoint.iface.name
        with replay.open_sender(self.endpoint, name) as sender:
            replay.check_mtu(sender, name, [frame])
        return flood.flood(self.endpoint, frame, count, to, wait)

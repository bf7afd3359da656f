"""Traffic counts exactly what it sent and what arrived, over loopback and over a veth pair."""

from __future__ import annotations

import socket
import threading
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.drops import Drops
from pytest_bpf.errors import NotMeasuredError, StimulusError
from pytest_bpf.netns.topology import pair
from pytest_bpf.traffic import Traffic, TrafficResult
from pytest_bpf.traffic.packets import Host, tcp_frame, udp_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.netns.namespace import Namespace
    from tests.conftest import Load


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as topology:
        left, right = topology
        yield left, right


@pytest.fixture
def left(ends: tuple[Namespace, Namespace]) -> Namespace:
    return ends[0]


@pytest.fixture
def right(ends: tuple[Namespace, Namespace]) -> Namespace:
    return ends[1]


@pytest.fixture(autouse=True)
def _nothing_left_open(
    ends: tuple[Namespace, Namespace],
) -> Iterator[None]:
    for end in ends:
        end.run(int)  # its thread is there before counting
    before = descriptors(), threading.active_count()
    yield
    assert (descriptors(), threading.active_count()) == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def udp_in_datagrams(namespace: Namespace) -> int:
    """The kernel's own count of datagrams delivered: InDatagrams of /proc/net/snmp."""

    def read() -> int:
        lines = Path("/proc/thread-self/net/snmp").read_text("ascii").splitlines()
        names, values = (line.split() for line in lines if line.startswith("Udp:"))
        return int(values[names.index("InDatagrams")])

    return namespace.run(read)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("size", [0, 1, 64, 1472, 60_000])
def test_udp_arrives(
    left: Namespace, right: Namespace, *, ipv6: bool, echo: bool, size: int
) -> None:
    sent = Traffic(left).udp(to=right, size=size, count=300, ipv6=ipv6, echo=echo)
    assert (sent.sent, sent.received, sent.lost, sent.errors) == (300, 300, 0, {})
    assert sent.bytes == sent.received_bytes == 300 * size
    assert sent.seconds > 0


@pytest.mark.parametrize("ipv6", [False, True])
def test_every_request_has_its_answer(left: Namespace, right: Namespace, *, ipv6: bool) -> None:
    sent = left.traffic.udp(to=right, count=60, flows=7, answers=True, ipv6=ipv6)
    assert (sent.sent, sent.received, sent.received_bytes) == (60, 60, 60 * 64)
    assert len(sent.rtts) == 60
    assert min(sent.rtts) == sent.rtt(0) <= sent.rtt(50) <= sent.rtt(99) <= sent.rtt(100)
    assert sent.rtt(100) == max(sent.rtts)
    assert sent.bits_per_second == pytest.approx(8 * 60 * 64 / sent.seconds)


def test_what_was_not_measured_is_said(left: Namespace) -> None:
    sent = left.traffic.udp(to=left, count=2, answers=True, payload=b"x")
    unanswered = left.traffic.udp(to=left, count=2, payload=b"x")
    with pytest.raises(NotMeasuredError, match=r"no round trip was measured: use ping"):
        unanswered.rtt(50)
    with pytest.raises(NotMeasuredError, match="nothing was sent"):
        _ = TrafficResult(0, 0, 0, 0, 0.0).bits_per_second
    with pytest.raises(NotMeasuredError, match="nothing was sent"):
        _ = TrafficResult(0, 0, 0, 0, 0.0).rate
    with pytest.raises(NotMeasuredError, match=r"no handshake was measured: use tcp"):
        sent.handshake(50)
    with pytest.raises(StimulusError, match="a percentile is from 0 to 100, not 101"):
        sent.rtt(101)


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_connection_has_two_sockets(left: Namespace, right: Namespace, *, ipv6: bool) -> None:
    with left.traffic.tcp_pair(to=right, port=7070, ipv6=ipv6) as (near, far):
        near.sendall(b"there")
        assert far.recv(10) == b"there"
        far.sendall(b"back")
        assert near.recv(10) == b"back"
        assert near.getpeername()[:2] == far.getsockname()[:2]
        assert far.getsockname()[1] == 7070


def test_a_rate_is_never_exceeded(left: Namespace, right: Namespace) -> None:
    sent = left.traffic.udp(to=right, count=100, flows=10, rate=2000)
    assert (sent.received, sent.lost) == (100, 0)
    assert sent.seconds >= 98 / 2000
    assert left.traffic.udp(to=right, count=20, rate=1000, answers=True).seconds >= 19 / 1000
    asked = left.traffic.tcp(to=right, count=20, rate=1000, answers=True)
    assert (asked.received, asked.seconds >= 19 / 1000) == (20, True)
    frames = [udp_frame(left.iface, right.iface, sport=n) for n in range(50)]
    for sent in (
        left.traffic.frames(frames, count=2, rate=2000, to=right),
        left.traffic.frames(frames[0], count=100, rate=2000, to=right),
    ):
        assert (sent.sent, sent.received) == (100, 100)
        assert sent.rate <= 100 / 98 * 2000


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize(("size", "connections"), [(1, 1), (64, 7), (300_000, 2)])
def test_every_request_over_tcp_has_its_answer(
    left: Namespace, right: Namespace, size: int, connections: int, *, ipv6: bool
) -> None:
    sent = left.traffic.tcp(
        to=right, count=30, size=size, connections=connections, answers=True, ipv6=ipv6
    )
    assert (sent.sent, sent.received, sent.lost, sent.errors) == (30, 30, 0, {})
    assert sent.bytes == sent.received_bytes == 30 * size
    assert (sent.connections, len(sent.handshakes), len(sent.rtts)) == (
        connections,
        connections,
        30,
    )
    assert 0 < sent.rtt(50) <= sent.rtt(99)
    assert 0 < sent.handshake(0) <= sent.handshake(100) == max(sent.handshakes)


FILTERS = """
SEC("xdp") int no_data(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct iphdr *ip = data + 14; struct tcphdr *tcp = data + 34;
    if ((void *)(tcp + 1) > end || ip->protocol != IPPROTO_TCP) return XDP_PASS;
    return bpf_ntohs(ip->tot_len) > 20 + tcp->doff * 4 ? XDP_DROP : XDP_PASS; }
SEC("xdp") int nothing(struct xdp_md *ctx) { return XDP_DROP; }
"""


@pytest.mark.parametrize(("program", "connections"), [("no_data", 2), ("nothing", 0)])
def test_requests_without_answers_are_lost(
    load: Load,
    left: Namespace,
    right: Namespace,
    program: str,
    connections: int,
) -> None:
    with load(FILTERS).programs[program].attach(right.iface):
        sent = left.traffic.tcp(to=right, count=9, connections=2, answers=True, timeout=0.1)
    assert (sent.sent, sent.received, sent.connections) == (9, 0, connections)
    assert (sent.errors, sent.rtts) == ({"ETIMEDOUT": 2}, ())
    with pytest.raises(NotMeasuredError, match=r"no round trip was measured: .*tcp.answers=True"):
        sent.rtt(50)


SYNS = """
__u64 seen;
SEC("xdp") int every_second(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct iphdr *ip = data + 14; struct tcphdr *tcp = data + 34;
    if ((void *)(tcp + 1) > end || ip->protocol != IPPROTO_TCP || !tcp->syn) return XDP_PASS;
    return seen++ & 1 ? XDP_DROP : XDP_PASS; }
"""


def test_a_syn_flood_is_accounted_for(load: Load, left: Namespace, right: Namespace) -> None:
    obj = load(SYNS)
    clients = [Host(left.iface.mac, IPv4Address(f"203.0.113.{n}")) for n in range(1, 201)]
    syns = [tcp_frame(client, right.iface) for client in clients]
    with Drops([right]) as drops, obj.programs["every_second"].attach(right.iface, mode="native"):
        sent = left.traffic.frames(syns, count=2, rate=20_000, to=right)
        assert drops.xdp == 200
    assert (sent.sent, obj.globals["seen"], sent.received) == (400, 400, 200)


@pytest.mark.parametrize("ipv6", [False, True])
def test_everything_reaches_itself_over_loopback(left: Namespace, *, ipv6: bool) -> None:
    traffic = Traffic(left)
    assert traffic.udp(count=10, ipv6=ipv6, echo=True).received == 10
    assert traffic.tcp(count=10, ipv6=ipv6, echo=True).received == 10
    assert traffic.ping(count=10, ipv6=ipv6).received == 10


def test_many_small_datagrams_are_not_lost_by_our_own_buffers(
    left: Namespace, right: Namespace
) -> None:
    before = udp_in_datagrams(right)
    sent = Traffic(left).udp(to=right, size=8, count=100_000)
    assert (sent.sent, sent.received) == (100_000, 100_000)
    assert udp_in_datagrams(right) - before == 100_000


def test_udp_says_what_was_asked(left: Namespace, right: Namespace) -> None:
    with right.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as seen:
        Traffic(left).udp(to=right, port=53, payload=b"question", src_port=4242, ttl=7, tos=0x10)
        packet = seen.recv(2048, socket.MSG_DONTWAIT)
    assert packet[1] == 0x10
    assert packet[8] == 7
    assert packet[12:20] == left.ipv4.packed + right.ipv4.packed
    assert packet[20:24] == (4242).to_bytes(2, "big") + (53).to_bytes(2, "big")
    assert packet[28:] == b"question"


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize(
    ("size", "count", "connections"), [(1, 7, 1), (1000, 1000, 3), (1 << 20, 16, 2), (10, 2, 5)]
)
def test_tcp_arrives(
    left: Namespace,
    right: Namespace,
    *,
    ipv6: bool,
    echo: bool,
    size: int,
    count: int,
    connections: int,
) -> None:
    sent = Traffic(left).tcp(
        to=right, size=size, count=count, connections=connections, ipv6=ipv6, echo=echo
    )
    assert (sent.sent, sent.received, sent.errors) == (count, count, {})
    assert sent.bytes == sent.received_bytes == size * count
    assert sent.connections == connections


def test_tcp_only_connects_when_there_is_nothing_to_send(left: Namespace, right: Namespace) -> None:
    sent = Traffic(left).tcp(to=right, count=0, connections=10, port=80, src_port=0)
    assert (sent.sent, sent.received, sent.lost, sent.bytes, sent.connections) == (0, 0, 0, 0, 10)


def test_tcp_from_a_port_again_and_again(left: Namespace, right: Namespace) -> None:
    for _ in range(3):
        assert Traffic(left).tcp(to=right, src_port=4243).received == 1


@pytest.mark.parametrize("ipv6", [False, True])
def test_ping_measures_round_trips(left: Namespace, right: Namespace, *, ipv6: bool) -> None:
    sent = Traffic(left).ping(to=right, count=20, size=100, ipv6=ipv6)
    assert (sent.sent, sent.received, sent.received_bytes) == (20, 20, 2000)
    assert len(sent.rtts) == 20
    assert all(0 < rtt < sent.seconds for rtt in sent.rtts)


def test_ping_without_payload(left: Namespace, right: Namespace) -> None:
    assert Traffic(left).ping(to=right, size=0).received == 1


def test_zero_count_sends_nothing(left: Namespace, right: Namespace) -> None:
    before = udp_in_datagrams(right)
    traffic = Traffic(left)
    for sent in (
        traffic.udp(to=right, count=0),
        traffic.ping(to=right, count=0),
        traffic.frames(bytes(60), count=0, to=right),
        traffic.flood(bytes(60), count=0),
    ):
        assert (sent.sent, sent.received, sent.bytes, sent.lost) == (0, 0, 0, 0)
    assert udp_in_datagrams(right) == before


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda t, r: t.udp(to=r, size=-1), "udp: size is -1; it must be 0 to 65507"),
        (lambda t, r: t.udp(to=r, size=65_508), "udp: size is 65508; it must be 0 to 65507"),
        (lambda t, r: t.udp(to=r, count=-1), "udp: count is -1; it must be at least 0"),
        (lambda t, r: t.udp(to=r, count=1.5), "udp: count is 1.5; it must be an integer"),
        (lambda t, r: t.udp(to=r, port=70_000), "port is 70000; it must be 0 to 65535"),
        (lambda t, r: t.udp(to=r, ttl=0), "ttl is 0; it must be 1 to 255"),
        (lambda t, r: t.udp(to=r, timeout=0), "timeout is 0 seconds; it must be positive"),
        (lambda t, r: t.tcp(to=r, size=0), "tcp: size is 0; it must be at least 1"),
        (lambda t, r: t.tcp(to=r, connections=0), "tcp: connections is 0; it must be at least 1"),
        (
            lambda t, r: t.tcp(to=r, connections=2, src_port=9),
            "tcp: connections is 2; it must be 1 to 1",
        ),
        (lambda t, r: t.tcp(to=r, rate=5), "tcp: rate= is of requests; it goes with answers=True"),
        (lambda t, r: t.tcp(to=r, rate=-5, answers=True), "tcp: rate is -5 a second; it must be"),
        (lambda t, r: t.udp(to=r, rate="x"), "udp: rate is 'x' a second; it must be positive"),
        (lambda t, _: t.frames(bytes(60), rate=True), "frames: rate is True a second; it must be"),
        (lambda t, r: t.ping(to=r, count=70_000), "ping: count is 70000; it must be 0 to 65536"),
        (lambda t, r: t.frames(b"short", to=r), "bytes of the frame is 5; it must be at least 14"),
        (
            lambda t, _: t.frames(bytes(60), iface="nope"),
            "left: frames cannot be sent from nope: No such device",
        ),
        (
            lambda t, _: t.frames(bytes(9000)),
            "the frame has 9000 bytes, but the mtu of veth0 is 1500, so a frame has at most 1514",
        ),
        (lambda t, _: t.sink("sctp").__enter__(), "there is no 'sctp' end; there are: udp, tcp"),
    ],
)
def test_nonsense_is_one_sentence(
    left: Namespace,
    right: Namespace,
    ask: Callable[[Traffic, Namespace], object],
    sentence: str,
) -> None:
    with pytest.raises(StimulusError) as raised:
        ask(Traffic(left), right)
    assert str(raised.value).startswith(sentence)


def test_a_port_in_use_is_one_sentence(left: Namespace, right: Namespace) -> None:
    with right.traffic.sink("udp", port=53), pytest.raises(StimulusError) as raised:
        Traffic(left).udp(to=right, port=53)
    assert str(raised.value) == (
        f"right: port 53 of {right.ipv4} cannot be opened: Address already in use"
    )


def test_no_route_is_one_sentence(right: Namespace) -> None:
    with pair() as topology:
        lost = topology["left"]
        lost.run(lower, lost.iface.name)
        with pytest.raises(StimulusError, match=r"by UDP to .* cannot be done: Network is unreach"):
            Traffic(lost).udp(to=right)
        with pytest.raises(StimulusError, match=r"by TCP to .* cannot be done: Network is unreach"):
            Traffic(lost).tcp(to=right)
        with pytest.raises(StimulusError, match=r"pinging .* cannot be done: Network is unreach"):
            Traffic(lost).ping(to=right)


def lower(ifname: str) -> None:
    """Take an interface of this thread's namespace down."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ioctls:
        fcntl.ioctl(ioctls, 0x8914, struct.pack("16sh14x", ifname.encode(), 0))


def test_icmp_errors_do_not_break_counts(left: Namespace, right: Namespace) -> None:
    closed = udp_frame(left.iface, right.iface, sport=4000, dport=4001)
    Traffic(left).frames(closed, count=50, to=right)  # each is answered: port unreachable
    sent = Traffic(left).udp(to=right, src_port=4000, count=1000, echo=True)
    assert (sent.received, sent.errors) == (1000, {})


def test_the_value_is_frozen_and_printable() -> None:
    sent = TrafficResult(3, 1, 30, 10, 0.5, {"EPERM": 2})
    assert sent.lost == 2
    assert repr(sent).startswith("TrafficResult(sent=3, received=1, bytes=30, received_bytes=10")
    with pytest.raises(AttributeError):
        sent.sent = 4  # type: ignore[misc]

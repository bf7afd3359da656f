"""Frames are accepted by the kernel's own stack, which checks every length and checksum."""

from __future__ import annotations

import ipaddress
import random
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpf.errors import StimulusError
from pytest_bpf.kernel.layers.packet import Packet
from pytest_bpf.kernel.layers.values import checksum
from pytest_bpf.netns.topology import pair
from pytest_bpf.traffic.frames import Tap
from pytest_bpf.traffic.packets import (
    ACK,
    CLIENT,
    SERVER,
    Host,
    arp_frame,
    fragments,
    geneve_frame,
    gre_frame,
    icmp_frame,
    ndp_frame,
    tcp_frame,
    udp_frame,
    vxlan_frame,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.netns.namespace import Namespace


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as topology:
        left, right = topology
        yield left, right


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("payload", [b"", b"x", b"odd", bytes(range(256)) * 5])
def test_a_udp_frame_reaches_a_socket(
    ends: tuple[Namespace, Namespace], *, ipv6: bool, payload: bytes
) -> None:
    left, right = ends
    with right.traffic.sink("udp", ipv6=ipv6) as sink:
        frame = udp_frame(left.iface, right.iface, dport=sink.port, payload=payload, ipv6=ipv6)
        sent = left.traffic.frames(frame, count=5, to=right)
    assert sent.received == 5
    assert (sink.received, sink.received_bytes) == (5, 5 * len(payload))


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_wrong_checksum_does_not(ends: tuple[Namespace, Namespace], *, ipv6: bool) -> None:
    left, right = ends
    with right.traffic.sink("udp", ipv6=ipv6) as sink:
        frame = udp_frame(left.iface, right.iface, dport=sink.port, payload=b"x", ipv6=ipv6)
        sent = left.traffic.frames(frame[:-1] + b"y", count=5, to=right)
    assert (sent.received, sink.received) == (5, 0)


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_syn_is_answered(ends: tuple[Namespace, Namespace], *, ipv6: bool) -> None:
    left, right = ends
    header = 54 if ipv6 else 34
    with right.traffic.listen_tcp(ipv6=ipv6) as listening:
        port = listening.getsockname()[1]
        syn = tcp_frame(left.iface, right.iface, sport=4000, dport=port, seq=0xFFFFFFFF, ipv6=ipv6)
        with left.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as seen:
            seen.bind((left.iface.name, 3))
            seen.settimeout(5)
            left.traffic.frames(syn)
            while (answer := seen.recv(2048))[6:12] == syn[6:12]:
                pass  # our own, on its way out
    assert answer[header : header + 4] == port.to_bytes(2, "big") + (4000).to_bytes(2, "big")
    assert answer[header + 8 : header + 12] == bytes(4)  # acknowledges seq + 1
    assert answer[header + 13] == 0x12  # SYN and ACK


@pytest.mark.parametrize("ipv6", [False, True])
def test_an_echo_request_is_answered(ends: tuple[Namespace, Namespace], *, ipv6: bool) -> None:
    left, right = ends
    request = icmp_frame(left.iface, right.iface, identifier=7, payload=b"odd", ipv6=ipv6)
    family, protocol, reply = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6, 129)
        if ipv6
        else (socket.AF_INET, socket.IPPROTO_ICMP, 0)
    )
    with left.socket(family, socket.SOCK_RAW, protocol) as seen:
        seen.settimeout(5)
        left.traffic.frames(request)
        answer = seen.recv(2048)
    answer = answer if ipv6 else answer[20:]
    assert answer[0] == reply
    assert answer[4:] == b"\0\7\0\1odd"


def test_a_tagged_frame_is_counted_without_its_tag(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    tagged = udp_frame(left.iface, right.iface, vlan=100)
    assert tagged[12:18] == b"\x81\x00\x00\x64\x08\x00"
    assert left.traffic.frames(tagged, count=3, to=right).received == 3


def test_a_tap_counts_equal_frames_only(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    one, other = (udp_frame(left.iface, right.iface, sport=sport) for sport in (1, 2))
    tap = Tap(right, right.iface.name, one)
    left.traffic.frames(other, count=5)
    left.traffic.frames(one, count=7)
    assert (tap.count(), tap.count()) == (7, 7)
    tap.close()


def test_loopback_has_frames_too(ends: tuple[Namespace, Namespace]) -> None:
    left, _ = ends
    assert left.traffic.frames(udp_frame(), count=9, iface="lo", to=left).received == 9


def test_defaults_are_documentation_addresses_and_a_layout_of_the_rfcs() -> None:
    frame = udp_frame(payload=b"abc", ttl=5, tos=0x20)
    assert frame[:14] == bytes.fromhex("020000000002 020000000001 0800")
    assert frame[14:16] == b"\x45\x20"
    assert frame[16:18] == (20 + 8 + 3).to_bytes(2, "big")
    assert frame[22:24] == b"\x05\x11"
    assert frame[26:34] == bytes([192, 0, 2, 1, 192, 0, 2, 2])
    assert frame[34:40] == (40000).to_bytes(2, "big") + b"\0\x09\0\x0b"
    assert frame[42:] == b"abc"
    segment = tcp_frame(flags=ACK, ipv6=True, tos=0xFF, ttl=1)
    assert segment[12:18] == b"\x86\xdd\x6f\xf0\0\0"
    assert segment[18:22] == b"\0\x14\x06\x01"
    assert segment[54 + 12 : 54 + 14] == b"\x50\x10"


@given(st.binary(max_size=200))
def test_the_checksum_is_the_ones_complement_sum(data: bytes) -> None:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) % 0xFFFF == (0xFFFF - total) % 0xFFFF


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_checksum_of_zero_is_sent_as_ones(*, ipv6: bool) -> None:
    at = 60 if ipv6 else 40
    balance = udp_frame(payload=b"\0\0", ipv6=ipv6)[at : at + 2]
    assert udp_frame(payload=balance, ipv6=ipv6)[at : at + 2] == b"\xff\xff"


@given(st.binary(max_size=64), st.booleans())
def test_a_datagram_with_its_checksum_sums_to_nothing(payload: bytes, ipv6: bool) -> None:
    frame = udp_frame(payload=payload, ipv6=ipv6)
    start, addresses = (54, frame[22:54]) if ipv6 else (34, frame[26:34])
    datagram = frame[start:]
    pseudo = addresses + bytes([0, 17]) + len(datagram).to_bytes(2, "big")
    assert checksum(pseudo + datagram) == 0
    assert datagram[6:8] != b"\0\0"


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: udp_frame(dport=65536), "dport is 65536; it must be 0 to 65535"),
        (
            lambda: udp_frame(payload=bytes(65_536)),
            "bytes of payload is 65536; it must be 0 to 65507",
        ),
        (
            lambda: tcp_frame(payload=bytes(65_500)),
            "bytes behind the IP header is 65520; it must be 0 to 65515",
        ),
        (lambda: udp_frame(vlan=4096), "vlan is 4096; it must be 0 to 4095"),
        (lambda: tcp_frame(flags=256), "flags is 256; it must be 0 to 255"),
        (lambda: tcp_frame(seq=-1), "seq is -1; it must be 0 to 4294967295"),
        (lambda: udp_frame(Host("02:00"), SERVER), "02:00 has no IPv4 address to put in a frame"),
        (
            lambda: udp_frame(Host("02:00", ipaddress.IPv4Address(0)), SERVER),
            "'02:00' is not a hardware address",
        ),
        (
            lambda: udp_frame(CLIENT, Host(CLIENT.mac), ipv6=True),
            "02:00:00:00:00:01 has no IPv6 address to put in a frame",
        ),
    ],
)
def test_nonsense_is_one_sentence(build: object, sentence: str) -> None:
    assert callable(build)
    with pytest.raises(StimulusError) as raised:
        build()
    assert str(raised.value).startswith(sentence)


def test_a_namespace_is_a_side_by_its_first_interface(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    for build in (udp_frame, tcp_frame, icmp_frame, arp_frame, ndp_frame):
        assert build(left, right) == build(left.iface, right.iface)
    assert gre_frame(b"x", left, right) == gre_frame(b"x", left.iface, right.iface)


def _answer(end: Namespace, frame: bytes, reply: bytes) -> Packet:
    """Send a frame and return what its interface receives that has the layers of ``reply``."""
    with end.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((end.iface.name, 3))
        raw.settimeout(5)
        raw.send(frame)
        while True:
            data, (_, _, kind, *_) = raw.recvfrom(2000)
            if kind != socket.PACKET_OUTGOING and data[12:22] == reply[12:22]:
                return Packet(data)


def test_the_kernel_answers_who_has_an_address() -> None:
    with pair(quiet=False) as (left, right):
        for frame in (arp_frame, ndp_frame):
            reply = frame(right.iface, left.iface, reply=True)
            assert _answer(left, frame(left.iface, right.iface), reply).differences(reply) == []


@pytest.mark.parametrize("ipv6", [False, True])
def test_the_kernel_puts_fragments_together(
    ends: tuple[Namespace, Namespace], *, ipv6: bool
) -> None:
    left, right = ends
    payload = random.Random(1).randbytes(5000)
    with right.traffic.echo("udp", ipv6=ipv6) as sink:
        frame = udp_frame(left.iface, right.iface, dport=sink.port, payload=payload, ipv6=ipv6)
        parts = fragments(frame, 1280)
        assert [len(part) - 14 <= 1280 for part in parts] == [True] * len(parts)
        with left.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
            raw.bind((left.iface.name, 0))
            for part in reversed(parts):
                raw.send(part)
        left.traffic.udp(to=right)  # what was sent before has arrived
    assert (sink.received, sink.received_bytes) == (1, 5000)


def test_what_has_no_fragments_is_refused() -> None:
    with pytest.raises(StimulusError, match="layers eth, arp has no fragments"):
        fragments(arp_frame(), 1280)
    with pytest.raises(StimulusError, match="the mtu of fragments is 20; it must be at least 28"):
        fragments(udp_frame(), 20)


def test_tunnels_carry_a_frame_and_tags_stack() -> None:
    inner = tcp_frame(options=b"\2\4\5\xb4")
    for outer in (
        vxlan_frame(inner, vni=9),
        geneve_frame(inner, options=bytes((1, 2, 3, 1, 0, 0, 0, 9)), ipv6=True),
        gre_frame(inner, key=7),
        gre_frame(inner, ipv6=True),
    ):
        packet = Packet(outer)
        assert packet.faults == ()
        assert packet.inner == inner
        assert packet.inner.tcp.options[0].value == 1460
    tagged = Packet(udp_frame(vlan=(7, 8)))
    assert [tag.id for tag in tagged.vlans] == [7, 8]
    assert (tagged.eth.type, tagged.vlan.type, tagged.faults) == (0x88A8, 0x8100, ())


def test_jumbo_frames_cross_a_pair_with_room() -> None:
    with pair(mtu=9000) as (left, right):
        frame = udp_frame(left.iface, right.iface, payload=bytes(8900))
        assert left.traffic.frames(frame, count=3, to=right).received == 3
        with pytest.raises(StimulusError, match="has 9072 bytes, but the mtu of veth0 is 9000"):
            left.traffic.frames(udp_frame(payload=bytes(9030)), count=1)


def test_packets_of_scapy_are_sent_as_they_are(ends: tuple[Namespace, Namespace]) -> None:
    plist = pytest.importorskip("scapy.plist")
    left, right = ends
    frames = [udp_frame(left.iface, right.iface, payload=bytes(size)) for size in (1, 2, 3)]
    packets = [Packet(frame).scapy() for frame in frames]
    assert left.traffic.frames(packets[0], count=2, to=right).received == 2
    for several in (packets, plist.PacketList(packets), iter(frames)):
        with right.iface.capture(direction="in") as capture:
            assert left.traffic.frames(several, to=right).received == 3
        assert capture.frames == packets
        assert capture.frames == frames

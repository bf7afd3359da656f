"""Packets by layers: what scapy builds is what we read, and no difference goes unseen."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpf.errors import UnknownNameError, ValueTypeError
from pytest_bpf.kernel.layers.packet import Packet
from pytest_bpf.kernel.layers.recognition import first_layer
from pytest_bpf.plugin.differences import explain
from pytest_bpf.traffic.packets import ACK, SYN, icmp_frame, tcp_frame, udp_frame

FRAMES = [
    udp_frame(payload=b"12345678"),
    udp_frame(ipv6=True, payload=b"123"),
    udp_frame(vlan=7),
    tcp_frame(payload=b"GET /"),
    tcp_frame(ipv6=True),
    icmp_frame(),
    icmp_frame(ipv6=True),
]


def scapy_frames() -> list[Any]:
    pytest.importorskip("scapy.all")
    from scapy.contrib.geneve import GENEVE
    from scapy.layers import inet, inet6, l2
    from scapy.layers.vxlan import VXLAN
    from scapy.packet import Raw

    ether: Any = l2.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    ip: Any = inet.IP(src="192.0.2.1", dst="192.0.2.2")
    ipv6: Any = inet6.IPv6(src="2001:db8::1", dst="2001:db8::2")
    inner = ether / ip / inet.UDP(sport=1, dport=2) / Raw(b"inner")
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 8)), ("NOP", None), ("WScale", 7)]
    hop: Any = inet6.IPv6ExtHdrHopByHop(options=[inet6.RouterAlert()])
    return [
        ether / l2.Dot1AD(vlan=3, prio=5) / l2.Dot1Q(vlan=9) / ip / inet.UDP() / Raw(b"x"),
        ether / l2.ARP(op=2, psrc="192.0.2.1", pdst="192.0.2.2"),
        ether / ip / inet.TCP(sport=5, dport=80, flags="SA", options=options) / Raw(b"hello"),
        ether / inet.IP(options=[inet.IPOption_Router_Alert()]) / inet.ICMP(type=8, id=3, seq=4),
        ether / ipv6 / hop / inet6.IPv6ExtHdrFragment(offset=0, m=1, id=77) / inet.UDP(dport=53),
        ether / ipv6 / inet6.IPv6ExtHdrDestOpt() / inet.TCP(flags="S"),
        ether / ipv6 / inet6.ICMPv6ND_NS(tgt="2001:db8::2") / inet6.ICMPv6NDOptSrcLLAddr(),
        ether / ip / inet.UDP(dport=4789) / VXLAN(vni=42) / inner,
        ether / ip / inet.UDP(dport=6081, sport=9) / GENEVE(vni=43, proto=0x6558) / inner,
        ether / ip / l2.GRE(key_present=1, key=5, proto=0x0800) / inner[inet.IP],
        ether / ip / inner[inet.IP],
        ether / ip / inet.ICMP(type=3, code=4, nexthopmtu=1400) / inner[inet.IP],
    ]


@cache
def scapy_bytes() -> list[bytes]:
    return [bytes(frame) for frame in scapy_frames()]


def test_fields_are_those_that_scapy_wrote() -> None:
    frames = [Packet(frame) for frame in scapy_bytes()]
    tags, arp, tcp, options, fragment, dest, discovery, vxlan, geneve, gre, ipip, error = frames
    assert [(tag.id, tag.priority) for tag in tags.vlans] == [(3, 5), (9, 0)]
    assert tags.layers == ("eth", "vlan", "vlan", "ip", "udp")
    assert tags.payload == b"x"
    assert arp.arp.operation == 2
    assert arp.arp.sender_ip == "192.0.2.1"
    assert (tcp.tcp.sport, tcp.tcp.flags) == (5, SYN | ACK)
    assert {option.name: option.value for option in tcp.tcp.options} == {
        "mss": 1460,
        "sack_permitted": b"",
        "timestamps": (7, 8),
        "nop": None,
        "window_scale": 7,
    }
    assert options.ip.options[0].name == "router_alert"
    assert (options.icmp.identifier, options.icmp.sequence) == (3, 4)
    assert fragment.layers == ("eth", "ipv6", "hop_by_hop", "fragment", "udp")
    assert (fragment.fragment.id, fragment.fragment.more_fragments) == (77, True)
    assert fragment.extensions[0].options[0].name == "router_alert"  # type: ignore[union-attr]
    assert fragment.udp.dport == 53
    assert dest.layers == ("eth", "ipv6", "destination", "tcp")
    assert discovery.icmpv6.target == "2001:db8:0::2"
    assert discovery.icmpv6.options[0].name == "source_lladdr"
    assert (vxlan.vxlan.vni, vxlan.inner.udp.dport, vxlan.inner.payload) == (42, 2, b"inner")
    assert geneve.geneve.vni == 43
    assert geneve.inner.ip.src == "192.0.2.1"
    assert (gre.gre.key, gre.inner.udp.dport) == (5, 2)
    assert ipip.inner.layers == ("ip", "udp")
    assert (error.icmp.mtu, error.inner.udp.sport) == (1400, 1)


def test_scapy_reads_what_we_built_and_gets_it_back() -> None:
    pytest.importorskip("scapy.all")
    for frame in FRAMES:
        packet = Packet(frame)
        again = packet.scapy()
        assert packet == again
        assert Packet(again) == packet
        assert packet.ip.ttl == again["IP"].ttl if "ip" in packet else again["IPv6"].hlim == 64


@pytest.mark.parametrize("number", range(12))
def test_frames_of_scapy_have_no_fault(number: int) -> None:
    assert Packet(scapy_bytes()[number]).faults == ()


@pytest.mark.parametrize("frame", FRAMES)
def test_our_frames_have_no_fault_and_a_changed_byte_is_one(frame: bytes) -> None:
    assert Packet(frame).faults == ()
    changed = bytearray(frame)
    changed[-1] ^= 1
    assert any("checksum is" in fault for fault in Packet(changed).faults)


def test_a_difference_names_the_field() -> None:
    one, two = Packet(udp_frame(ttl=64)), Packet(udp_frame(ttl=63))
    assert one.differences(two)[0] == "ip.ttl: 64, not 63"
    assert one.differences(one.data) == []
    assert Packet(udp_frame(vlan=7)).differences(udp_frame())[:2] == [
        "eth.type: 0x8100, not 0x0800",
        "vlan: only on the left: priority 0, id 7, type 0x0800",
    ]
    flags = Packet(tcp_frame(flags=2)).differences(tcp_frame(flags=18))
    assert flags[0] == "tcp.flags: SYN, not SYN|ACK"
    longer = Packet(udp_frame(payload=b"abcd")).differences(udp_frame(payload=b"abXdef"))
    assert longer[-1] == "payload[2:]: 63 64, not 58 64 65 66 (4 bytes, not 6)"
    assert "tcp.options.mss: 1460, not 1400" in Packet(scapy_bytes()[2]).differences(
        scapy_bytes()[2].replace(b"\5\xb4", b"\5\x78")
    )
    tunnels = scapy_frames()[7], scapy_frames()[7]
    tunnels[1]["VXLAN"]["IP"].ttl = 9
    assert "inner.ip.ttl: 64, not 9" in Packet(tunnels[0]).differences(tunnels[1])


def test_a_truncated_frame_is_shown_as_far_as_it_goes() -> None:
    whole = tcp_frame()
    for size in range(len(whole)):
        packet = Packet(whole[:size])
        assert f"{size} bytes" in repr(packet)
        assert packet.faults
        assert str(packet)
    cut = Packet(whole[:40])
    assert cut.layers == ("eth", "ip")
    assert cut.faults[-1] == "tcp is cut off: 6 of its 20 bytes are there"
    with pytest.raises(UnknownNameError, match=r"no layer tcp; its layers: eth, ip; tcp is cut"):
        _ = cut.tcp
    assert "tcp" not in cut


def test_a_packet_is_a_value() -> None:
    packet = Packet(udp_frame())
    assert packet == udp_frame()
    assert hash(packet) == hash(Packet(udp_frame()))
    with pytest.raises(AttributeError, match="a packet does not change"):
        packet.data = b""
    with pytest.raises(AttributeError):
        packet.ip.ttl = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match=r"no 'ipv4'; did you mean 'ipv6'"):
        _ = packet.ipv4  # type: ignore[attr-defined]
    with pytest.raises(ValueTypeError, match="a packet is 5; it must be bytes"):
        Packet(5)
    with pytest.raises(ValueTypeError, match="begins with eth, ip or ipv6"):
        Packet(b"", "udp")


def mutations(draw: st.DrawFn) -> tuple[bytes, bytes]:
    frame = draw(st.sampled_from(FRAMES + scapy_bytes()))
    changed = bytearray(frame)
    for _ in range(draw(st.integers(1, 3))):
        changed[draw(st.integers(0, len(frame) - 1))] ^= draw(st.integers(1, 255))
    return frame, bytes(changed[: draw(st.integers(0, len(changed)))])


@given(st.composite(mutations)())
def test_no_difference_goes_unseen(pair: tuple[bytes, bytes]) -> None:
    left, right = Packet(pair[0]), Packet(pair[1])
    assert bool(left.differences(right)) == (pair[0] != pair[1])
    assert repr(right)
    assert str(right)
    assert isinstance(right.faults, tuple)


@given(st.binary(max_size=120), st.sampled_from(["eth", "ip", "ipv6"]))
def test_random_bytes_are_shown_too(data: bytes, first: str) -> None:
    packet = Packet(data, first)
    assert str(packet) is not None
    assert repr(packet)
    first_layer(data)


def test_a_failed_comparison_of_bytes_names_the_field() -> None:
    for right in (udp_frame(ttl=63), Packet(udp_frame(ttl=63)), Packet(udp_frame(ttl=63)).scapy()):
        lines = explain("==", udp_frame(ttl=64), right)
        assert lines is not None
        assert "  ip.ttl: 64, not 63" in lines
    same = explain("==", udp_frame(), Packet(udp_frame()).scapy())
    assert same is not None
    assert "their bytes are the same: compare Packet" in same[1]
    several = explain("==", [udp_frame(), udp_frame(ttl=5)], [udp_frame(), udp_frame(), b""])
    assert several is not None
    assert "  [1].ip.ttl: 5, not 64" in several
    assert "  [2]: only on the right: b''" in several
    one_less = explain("==", [udp_frame(), udp_frame(ttl=5)], [udp_frame(ttl=5)])
    assert one_less is not None
    assert one_less[1:] == [f"  [0]: only on the left: {Packet(udp_frame())!r}"]
    none = explain("==", [], [udp_frame()])
    assert none == ["0 packets == 1 packets", f"  [0]: only on the right: {Packet(udp_frame())!r}"]
    other = explain("==", [udp_frame(), {"not": "a packet"}], [udp_frame()])
    assert other is not None
    assert other[1:] == ["  [1]: only on the left: {'not': 'a packet'}"]
    assert explain("==", b"no packet at all, only bytes", b"other") is None
    assert explain("==", udp_frame()[14:], udp_frame(ttl=9)[14:])[1] == "  ip.ttl: 64, not 9"  # type: ignore[index]

"""An XDP filter: its verdict on every kind of frame, then on real traffic between two namespaces.

``test_run`` asks about frames that no socket would send: cut short, tagged, fragmented. What a
user sees, that some packets arrive and others do not, takes a veth pair.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import XdpAction
from pytest_bpf.traffic.packets import CLIENT, SERVER, icmp_frame, tcp_frame, udp_frame

if TYPE_CHECKING:
    from pytest_bpf import Drops, Loader, Object, Topology
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import FindWorst

pytestmark = pytest.mark.bpf_requires(program_type="xdp", map_type="lpm_trie")

PASS, DROP = XdpAction.XDP_PASS, XdpAction.XDP_DROP
PASSED, BLOCKED_SOURCE, BLOCKED_PORT = range(3)
DNS = 53

both_versions = pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])


@both_versions
@pytest.mark.parametrize("vlan", [None, 5], ids=["untagged", "tagged"])
def test_port_is_blocked_for_udp_alone(bpf: Loader, ipv6: bool, vlan: int | None) -> None:
    obj = load(bpf)
    assert verdict(obj, udp_frame(dport=DNS, ipv6=ipv6, vlan=vlan)) == DROP
    assert verdict(obj, udp_frame(dport=DNS + 1, ipv6=ipv6, vlan=vlan)) == PASS
    assert verdict(obj, udp_frame(sport=DNS, ipv6=ipv6, vlan=vlan)) == PASS
    assert verdict(obj, tcp_frame(dport=DNS, ipv6=ipv6, vlan=vlan)) == PASS
    assert verdict(obj, icmp_frame(ipv6=ipv6, vlan=vlan)) == PASS
    assert obj.maps["packets"].sum(BLOCKED_PORT) == 1
    assert obj.maps["packets"].sum(PASSED) == 4


def test_longest_prefix_decides_about_a_source(bpf: Loader) -> None:
    obj = load(bpf)
    obj.maps["sources4"].update({"198.51.0.0/16": 1, "198.51.100.0/24": 0, "198.51.100.7": 1})
    obj.maps["sources6"].update({"2001:db8:bad::/48": 1, "2001:db8:bad:1::/64": 0})
    expected = {
        "198.50.255.255": PASS,
        "198.51.0.0": DROP,
        "198.51.100.6": PASS,
        "198.51.100.7": DROP,
        "198.51.255.255": DROP,
        "198.52.0.0": PASS,
    }
    expected6 = {
        "2001:db8:bac:ffff::1": PASS,
        "2001:db8:bad::1": DROP,
        "2001:db8:bad:1::1": PASS,
        "2001:db8:bae::1": PASS,
    }
    for address, action in expected.items():
        source = replace(CLIENT, ipv4=IPv4Address(address))
        assert verdict(obj, tcp_frame(src=source)) == action, address
    for address, action in expected6.items():
        source = replace(CLIENT, ipv6=IPv6Address(address))
        assert verdict(obj, tcp_frame(src=source, ipv6=True)) == action, address
    assert obj.maps["packets"].sum(BLOCKED_SOURCE) == 4


@both_versions
@pytest.mark.parametrize("vlan", [None, 5], ids=["untagged", "tagged"])
def test_frames_cut_short_pass_until_the_port_is_there(
    bpf: Loader, ipv6: bool, vlan: int | None
) -> None:
    obj = load(bpf)
    whole = udp_frame(dport=DNS, ipv6=ipv6, vlan=vlan)  # headers alone
    for length in range(14, len(whole)):
        assert verdict(obj, whole[:length]) == PASS, length
    assert verdict(obj, whole) == DROP


def test_double_tags_and_ipv4_options_are_looked_behind(bpf: Loader) -> None:
    obj = load(bpf)
    single = udp_frame(dport=DNS, vlan=5)
    double = single[:12] + bytes.fromhex("88a8 0007") + single[12:]
    triple = double[:12] + bytes.fromhex("88a8 0008") + double[12:]
    assert verdict(obj, double) == DROP
    assert verdict(obj, triple) == PASS  # two tags is all it looks behind

    plain = udp_frame(dport=DNS)
    options = plain[:14] + b"\x46" + plain[15:34] + bytes(4) + plain[34:]
    assert verdict(obj, options) == DROP

    # a header said to be 16 bytes is none, even if the port seems to be in its address
    misread = udp_frame(dst=replace(SERVER, ipv4=IPv4Address((192 << 24) + DNS)))
    assert verdict(obj, misread[:14] + b"\x44" + misread[15:]) == PASS


def test_only_first_ipv4_fragment_has_a_port(bpf: Loader) -> None:
    obj = load(bpf)
    frame = udp_frame(dport=DNS)
    first = frame[:20] + bytes.fromhex("2000") + frame[22:]  # more follow
    later = frame[:20] + bytes.fromhex("2001") + frame[22:]  # 8 bytes on: these are no ports
    assert verdict(obj, first) == DROP
    assert verdict(obj, later) == PASS
    obj.maps["sources4"][CLIENT.ipv4] = 1
    assert verdict(obj, later) == DROP


def test_ipv6_extension_headers_are_looked_behind(bpf: Loader) -> None:
    obj = load(bpf)
    frame = udp_frame(dport=DNS, ipv6=True)
    udp, hop_by_hop, routing, fragment, options = 17, 0, 43, 44, 60

    def behind(kind: int, inner: bytes, content: bytes = bytes(6)) -> bytes:
        """Put a header of 8 bytes, or more, between IPv6's and what follows it."""
        header = bytes((inner[20], (len(content) + 2) // 8 - 1)) + content
        return inner[:20] + bytes([kind]) + inner[21:54] + header + inner[54:]

    assert frame[20] == udp
    assert verdict(obj, behind(hop_by_hop, frame)) == DROP
    assert verdict(obj, behind(options, frame, bytes(30))) == DROP
    assert verdict(obj, behind(hop_by_hop, behind(routing, behind(options, frame)))) == DROP

    first, later = bytes.fromhex("0001 00000000"), bytes.fromhex("0008 00000000")
    assert verdict(obj, behind(fragment, frame, first)) == DROP  # more follow
    assert verdict(obj, behind(fragment, frame, later)) == PASS  # 8 bytes on: these are no ports

    for kind in (options, fragment):
        whole = behind(kind, frame)
        for length in range(14, len(whole)):
            assert verdict(obj, whole[:length]) == PASS, length
        assert verdict(obj, whole) == DROP

    for _ in range(4):
        frame = behind(options, frame)
    assert verdict(obj, frame) == DROP
    assert verdict(obj, behind(options, frame)) == PASS  # four is all it looks behind


def test_port_0_blocks_none(bpf: Loader) -> None:
    obj = bpf.load("filter.bpf.c")
    assert verdict(obj, udp_frame(dport=0)) == PASS


@pytest.mark.bpf_requires(cpus=2)
def test_packets_are_counted_on_all_cpus_at_once(bpf: Loader) -> None:
    obj = load(bpf)
    frames = 1_000_000

    def run_on(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread
        obj.programs["filter"].test_run(udp_frame(), repeat=frames)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_on, sorted(os.sched_getaffinity(0))[:2]))
    assert obj.maps["packets"].sum(PASSED) == 2 * frames


@pytest.mark.bpf_requires(attach="xdp")
@pytest.mark.parametrize("mode", ["native", "generic"])
@both_versions
def test_port_is_blocked_in_real_traffic(
    bpf: Loader, bpf_netns_pair: Topology, bpf_drops: Drops, mode: str, ipv6: bool
) -> None:
    left, right = bpf_netns_pair
    obj = load(bpf)
    obj.programs["filter"].attach(right.iface, mode=mode)

    assert left.traffic.udp(to=right, port=DNS, count=1000, ipv6=ipv6).received == 0
    assert left.traffic.udp(to=right, port=DNS + 1, count=1000, ipv6=ipv6).received == 1000
    assert left.traffic.tcp(to=right, port=DNS, count=10, ipv6=ipv6).received == 10
    assert left.traffic.ping(to=right, count=3, ipv6=ipv6).received == 3

    assert obj.maps["packets"].sum(BLOCKED_PORT) == 1000
    assert bpf_drops.xdp == 1000


@pytest.mark.bpf_requires(attach="xdp")
@both_versions
def test_source_is_blocked_and_let_in_again(
    bpf: Loader, bpf_netns_pair: Topology, bpf_drops: Drops, ipv6: bool
) -> None:
    left, right = bpf_netns_pair
    obj = load(bpf)
    obj.programs["filter"].attach(right.iface)
    sources, address = (
        (obj.maps["sources6"], left.ipv6) if ipv6 else (obj.maps["sources4"], left.ipv4)
    )

    assert left.traffic.udp(to=right, count=100, ipv6=ipv6).received == 100
    sources[address] = 1
    assert left.traffic.udp(to=right, count=100, ipv6=ipv6).received == 0
    del sources[address]
    assert left.traffic.udp(to=right, count=100, ipv6=ipv6).received == 100

    assert obj.maps["packets"].sum(BLOCKED_SOURCE) == 100
    assert bpf_drops.xdp == 100


def load(bpf: Loader) -> Object:
    """Load the filter with DNS blocked, and no networks yet."""
    return bpf.load("filter.bpf.c", globals={"port": DNS})


def verdict(obj: Object, frame: bytes) -> int:
    """Return what the filter does with a frame."""
    return obj.programs["filter"].test_run(frame).retval


@pytest.mark.bpf_requires(exact=True)
@pytest.mark.bpf_claim("no packet costs the XDP filter more than 500 instructions")
def test_the_dearest_packet_is_within_its_budget(
    bpf: Loader, bpf_worst: FindWorst, bpf_claim: ClaimCheck
) -> None:
    obj = load(bpf)
    obj.maps["sources4"].update({"198.51.0.0/16": 0, "198.51.100.0/24": 0, "198.51.100.7": 0})
    obj.maps["sources6"].update({"2001:db8:bad::/48": 0, "2001:db8:bad:1::/64": 0})
    worst = bpf_worst(obj, count=5000)
    bpf_claim(
        worst.instructions <= 500,
        f"{worst.instructions:.0f}, of BPF {worst.insns}, for {len(worst.data)} bytes: "
        f"{worst.way[-1]}",
    )

"""Packets that routes, routers, devices and redirects of tc end are accounted for."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.test_drops_paths import COUNT, accounted

if TYPE_CHECKING:
    from pytest_bpf.drops import Drops
    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Namespace, Topology
    from pytest_bpf.netns.places import Places
    from pytest_bpf.objects import Object

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

LINK = 253
"""``RT_SCOPE_LINK``."""

PROGRAMS = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
__u32 port, peer;
SEC("classifier") int neigh(struct __sk_buff *skb) { return bpf_redirect_neigh(port, 0, 0, 0); }
SEC("classifier") int neigh_by_nobody(struct __sk_buff *skb) {
    struct bpf_redir_neigh params = {.nh_family = 77};
    return bpf_redirect_neigh(port, &params, sizeof(params), 0); }
SEC("classifier") int neigh_by_next_hop(struct __sk_buff *skb) {
    struct bpf_redir_neigh params = {.nh_family = 2, .ipv4_nh = bpf_htonl(0xC6336463)};
    return bpf_redirect_neigh(port, &params, sizeof(params), 0); }
SEC("classifier") int peer_of(struct __sk_buff *skb) { return bpf_redirect_peer(port, 0); }
SEC("classifier") int redirect(struct __sk_buff *skb) { return bpf_redirect(port, 0); }
SEC("classifier") int redirect_in(struct __sk_buff *skb) {
    return bpf_redirect(port, BPF_F_INGRESS); }
SEC("classifier") int clone(struct __sk_buff *skb) {
    bpf_clone_redirect(skb, port, 0); return 0; }
SEC("classifier") int clone_and_drop(struct __sk_buff *skb) {
    bpf_clone_redirect(skb, port, 0); return 2; }
"""


@pytest.fixture
def path(bpf_places: Places) -> Topology:
    return bpf_places.router()


@pytest.fixture
def programs(bpf: Loader) -> Object:
    return bpf.load(PROGRAMS, name="routes")


def add_dummy(router: Namespace) -> int:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        router.ipr.link("add", ifname="nowhere", kind="dummy", address="02:00:00:00:00:99")
    except NetlinkError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        pytest.skip("this kernel has no dummy interfaces (CONFIG_DUMMY)")
    index = router.interfaces["nowhere"].ifindex
    router.ipr.link("set", index=index, state="up")
    return index


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_routes_that_lead_nowhere(kind: str, path: Topology, bpf_drops: Drops) -> None:
    _, router, right = path
    router.ipr.route("add", dst=f"{right.ipv4}/32", type=kind)
    assert accounted(path, bpf_drops).received == 0


def test_no_route_at_all(path: Topology, bpf_drops: Drops) -> None:
    _, router, right = path
    router.ipr.route("del", dst=str(right.iface.ipv4.network), scope=LINK)  # type: ignore[union-attr]
    assert accounted(path, bpf_drops).received == 0


@pytest.mark.parametrize("ipv6", [False, True])
def test_packets_whose_time_is_up(path: Topology, bpf_drops: Drops, *, ipv6: bool) -> None:
    left, _, right = path
    sent = left.traffic.udp(to=right, count=COUNT, ttl=1, ipv6=ipv6)
    own = bpf_drops.reasons.get("NOT_SPECIFIED", 0) if ipv6 else 0  # 6.1: errors of ICMPv6
    assert (sent.received, bpf_drops.total - own) == (0, COUNT), repr(bpf_drops)


def test_a_router_that_does_not_forward(path: Topology, bpf_drops: Drops) -> None:
    _, router, _ = path
    router.run(Path("/proc/sys/net/ipv4/ip_forward").write_text, "0")
    assert accounted(path, bpf_drops).received == 0


def test_a_device_that_takes_everything(path: Topology, bpf_drops: Drops) -> None:
    _, router, right = path
    index = add_dummy(router)
    router.ipr.route("add", dst=f"{right.ipv4}/32", oif=index)
    assert accounted(path, bpf_drops).received == 0


def test_an_interface_that_is_down(path: Topology, bpf_drops: Drops) -> None:
    *_, right = path
    right.ipr.link("set", index=right.iface.ifindex, state="down")
    assert accounted(path, bpf_drops).received == 0


def test_neighbours_that_do_not_answer(path: Topology, bpf_drops: Drops) -> None:
    _, router, right = path
    index = router.interfaces["right"].ifindex
    for name, value in (("retrans_time_ms", "10"), ("mcast_solicit", "1")):
        router.run(Path(f"/proc/sys/net/ipv4/neigh/right/{name}").write_text, value)
    router.ipr.neigh("del", dst=str(right.ipv4), ifindex=index)
    right.run(Path("/proc/sys/net/ipv4/conf/veth0/arp_ignore").write_text, "8")
    assert accounted(path, bpf_drops).received == 0


@pytest.mark.parametrize(
    ("program", "to"),
    [
        (program, to)
        for program in ("neigh", "neigh_by_nobody", "neigh_by_next_hop", "peer_of")
        for to in ("right", "nobody", "dummy")
    ],
)
def test_redirects_to_neighbours(
    program: str, to: str, programs: Object, path: Topology, bpf_drops: Drops
) -> None:
    router = path["router"]
    ports = {"right": router.interfaces["right"].ifindex, "nobody": 4242}
    programs.globals["port"] = ports[to] if to in ports else add_dummy(router)
    programs.programs[program].attach(router.interfaces["left"], direction="ingress")
    result = accounted(path, bpf_drops)
    arrive = (program, to) in {("neigh", "right"), ("peer_of", "right")}
    assert result.received == (COUNT if arrive else 0)


@pytest.mark.parametrize(
    ("program", "to", "copies"),
    [
        ("redirect", "nobody", 0),
        ("redirect", "lo", 0),
        ("redirect", "back", 0),
        ("redirect", "dummy", 0),
        ("redirect_in", "nobody", 0),
        ("redirect_in", "lo", 0),
        ("clone", "nobody", 0),  # no copy is made
        ("clone", "lo", COUNT),
        ("clone", "back", COUNT),
        ("clone", "dummy", COUNT),
        ("clone_and_drop", "nobody", 0),
        ("clone_and_drop", "back", COUNT),
    ],
)
def test_redirects_and_clones(  # noqa: PLR0917
    program: str, to: str, copies: int, programs: Object, path: Topology, bpf_drops: Drops
) -> None:
    left, router, right = path
    ports = {"nobody": 4242, "lo": 1, "back": router.interfaces["left"].ifindex}
    programs.globals["port"] = ports[to] if to in ports else add_dummy(router)
    programs.programs[program].attach(router.interfaces["left"], direction="ingress")
    sent = left.traffic.udp(to=right, count=COUNT)
    assert sent.sent + copies == sent.received + bpf_drops.total, repr(bpf_drops)
    assert sent.received == (COUNT if program == "clone" else 0)


@pytest.mark.parametrize("verdict", ["policy", "rule"])
def test_nftables(verdict: str, path: Topology, bpf_drops: Drops) -> None:
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.nftables import expressions, main

    def add() -> None:
        with main.NFTables(nfgen_family=socket.AF_INET) as nft:
            nft.table("add", name="filter")
            hook = {"hook": "forward", "type": "filter", "policy": int(verdict == "rule")}
            nft.chain("add", table="filter", name="forward", **hook)
            if verdict == "rule":
                drop = expressions.verdict(code=0)
                nft.rule("add", table="filter", chain="forward", expressions=(drop,))

    try:
        path["router"].run(add)
    except (NetlinkError, OSError) as error:
        if error.args[0] not in {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT}:
            raise
        pytest.skip("this kernel has no nftables (CONFIG_NF_TABLES)")
    assert accounted(path, bpf_drops).received == 0

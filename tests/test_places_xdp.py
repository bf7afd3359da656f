"""Places in which native XDP works in every way, their loopback, and pyroute2 in a namespace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import (
    AttachError,
    PlaceError,
    StimulusError,
    UnavailableError,
    UnknownNameError,
)
from pytest_bpf.kernel import features
from pytest_bpf.netns import Namespace
from pytest_bpf.traffic.packets import CLIENT, Host, icmp_frame, tcp_frame, udp_frame
from tests.conftest import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.drops import Drops
    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Topology
    from pytest_bpf.netns.places import Places

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

MOVES = """
__u64 hits;
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 1);
         __type(key, __u32); __type(value, __u32); } ports SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 1);
         __type(key, __u32); __type(value, __u32); } cpus SEC(".maps");
static void swap(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data; struct iphdr *ip = data + 14; struct udphdr *udp = data + 34;
    unsigned char mac[6]; __u32 address; __u16 port;
    if (data + 42 > end || eth->h_proto != bpf_htons(0x0800)) return;
    __builtin_memcpy(mac, eth->h_source, 6);
    __builtin_memcpy(eth->h_source, eth->h_dest, 6); __builtin_memcpy(eth->h_dest, mac, 6);
    address = ip->saddr; ip->saddr = ip->daddr; ip->daddr = address;
    port = udp->source; udp->source = udp->dest; udp->dest = port; }
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int answer(struct xdp_md *ctx) { hits++; swap(ctx); return XDP_TX; }
SEC("xdp") int forward(struct xdp_md *ctx) { hits++; return bpf_redirect_map(&ports, 0, 0); }
SEC("xdp") int queue(struct xdp_md *ctx) { hits++; return bpf_redirect_map(&cpus, 0, 0); }
"""
COUNT = 50


def test_xdp_tx_answers_the_sender(bpf: Loader, bpf_places: Places, bpf_drops: Drops) -> None:
    left, right = bpf_places.pair(xdp=True)
    obj = bpf.load(HEADER + MOVES, name="moves")
    obj.programs["answer"].attach(right.iface, mode="native")
    with left.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        for number in range(COUNT):
            client.sendto(str(number).encode(), (str(right.ipv4), 4242))
            assert client.recv(64) == str(number).encode()
    assert obj.globals["hits"] == COUNT
    assert bpf_drops.total == 0


def test_the_far_end_s_program_makes_room_for_one_of_the_test(
    bpf: Loader, bpf_places: Places
) -> None:
    left, right = bpf_places.pair(xdp=True)
    obj = bpf.load(HEADER + MOVES, name="moves")
    obj.programs["answer"].attach(right.iface, mode="native")
    assert [each.program for each in bpf.query(left.iface)] == ["pytest_bpf_pass"]
    for mode in ("generic", "native"):
        link = obj.programs["pass"].attach(left.iface, mode=mode)
        assert [each.program for each in bpf.query(left.iface)] == ["pass"]
        link.detach()


def test_a_cpumap_passes_packets_of_sockets(
    bpf: Loader, bpf_places: Places, bpf_drops: Drops
) -> None:
    left, right = bpf_places.pair(xdp=True)
    obj = bpf.load(HEADER + MOVES, name="moves")
    obj.maps["cpus"][0] = 192
    obj.programs["queue"].attach(right.iface, mode="native")
    assert left.traffic.udp(to=right, count=COUNT).received == COUNT
    assert obj.globals["hits"] == COUNT
    assert bpf_drops.total == 0


def test_a_redirect_out_of_a_router_arrives(
    bpf: Loader, bpf_places: Places, bpf_drops: Drops
) -> None:
    left, router, right = bpf_places.router(xdp=True)
    obj = bpf.load(HEADER + MOVES, name="moves")
    router.run(obj.maps["ports"].__setitem__, 0, router.interfaces["right"].ifindex)
    obj.programs["forward"].attach(router.interfaces["left"], mode="native")
    with right.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        wire.settimeout(5)
        left.traffic.frames(udp_frame(left.iface, right.iface, payload=b"redirected"), count=1)
        while b"redirected" not in wire.recv(2048):
            pass
    assert obj.globals["hits"] == 1
    assert bpf_drops.total <= 1  # the frame is for the MAC of nobody in right


NETKIT = """
__u64 requests, answers;
SEC("netkit/primary") int sent(struct __sk_buff *ctx) { ++requests; return -1; }
SEC("netkit/peer") int answered(struct __sk_buff *ctx) { ++answers; return -1; }
"""


@pytest.mark.parametrize("make", ["pair", "router", "bridge"])
def test_topologies_with_xdp_carry_ordinary_traffic(make: str, bpf_places: Places) -> None:
    topology: Topology = getattr(bpf_places, make)(xdp=True)
    first, second = topology[0], topology[1 if make != "router" else 2]
    assert first.traffic.udp(to=second, count=COUNT).received == COUNT
    assert first.traffic.tcp(to=second, count=COUNT).received == COUNT


def test_lo_is_an_interface(bpf: Loader, bpf_netns: Namespace) -> None:
    lo = bpf_netns.lo
    assert (lo.name, lo.ifindex, str(lo.ipv4), str(lo.ipv6)) == ("lo", 1, "127.0.0.1/8", "::1/128")
    assert bpf_netns.interfaces["lo"] == lo
    assert list(bpf_netns.interfaces) == []
    text = '__u64 hits; SEC("tc") int count(struct __sk_buff *skb) { hits++; return 0; }'
    obj = bpf.load(HEADER + text, name="lo")
    obj.programs["count"].attach(lo, direction="ingress")
    assert bpf_netns.traffic.udp(count=COUNT).received == COUNT
    assert obj.globals["hits"] == COUNT
    with pytest.raises(UnknownNameError, match="no interface 'l0'"):
        _ = bpf_netns.interfaces["l0"]


def test_pyroute2_works_in_the_namespace_from_any_thread(bpf_netns: Namespace) -> None:
    before = socket.if_nameindex()
    bpf_netns.ipr.link("add", ifname="br7", kind="bridge")
    assert [name for _, name in bpf_netns.run(socket.if_nameindex)] == ["lo", "br7"]
    assert socket.if_nameindex() == before
    names: list[Any] = []

    def list_links() -> None:
        names.extend(link.get_attr("IFLA_IFNAME") for link in bpf_netns.ipr.get_links())

    for run in (list_links, lambda: bpf_netns.run(list_links)):
        names.clear()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert names == ["lo", "br7"]


def test_pyroute2_is_closed_with_its_namespace() -> None:
    def sockets() -> int:
        return sum("socket:" in os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir())

    with Namespace("first") as namespace:
        namespace.ipr.get_links()
    before = sockets()
    with Namespace("second") as namespace:
        namespace.ipr.get_links()
        assert sockets() > before
    assert sockets() <= before


LATE = """
import sys
from pytest_bpf.netns import Namespace

with Namespace() as place:
    assert place.ipr.get_links()
    assert "pyroute2.ndb" not in sys.modules
    import pyroute2
    assert not hasattr(pyroute2, "__wrapped__")
    assert pyroute2.netns is sys.modules["pyroute2.netns"]
    assert "pyroute2.ndb" not in sys.modules
    assert pyroute2.__version__
    from pyroute2 import NDB, IPRoute
    assert isinstance(place.ipr, IPRoute)
    source = {"target": "localhost", "netns": f"/proc/self/fd/{place.fileno()}"}
    with NDB(sources=[source]) as ndb:
        assert [each.ifname for each in ndb.interfaces.dump()] == ["lo"]
    try:
        from pyroute2 import nothing
    except ImportError as error:
        assert "nothing" in str(error), error
    else:
        raise AssertionError("there is such a name")
"""


def test_pyroute2_imports_ndb_and_the_rest_when_somebody_asks_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


TC = """
import sys
import threading
from pytest_bpf.netns import Namespace

KINDS = "pyroute2.netlink.rtnl.tcmsg."

def have_run():
    kinds = {name: vars(sys.modules[name]) for name in sys.modules if name.startswith(KINDS)}
    return {name.removeprefix(KINDS) for name, names in kinds.items() if "__builtins__" in names}

with Namespace() as place:
    place.ipr.get_links()
    assert not have_run(), have_run()
    found = []
    def add(number):
        place.ipr.link("add", ifname=f"end{number}", kind="veth", peer=f"peer{number}")
        index = place.interfaces[f"end{number}"].ifindex
        place.ipr.tc("add", kind="pfifo", index=index, handle=0x10000, limit=9)
        found.append(place.ipr.get_qdiscs(index=index)[0].get_attr("TCA_KIND"))
    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["pfifo"] * 4, found
    assert "sched_pfifo" in have_run()
    assert not have_run() & {"sched_cake", "cls_u32", "act_bpf"}, have_run()
    from pyroute2.netlink.rtnl.tcmsg import sched_cake
    from pyroute2.netlink.rtnl.tcmsg.cls_u32 import options
    assert sched_cake.options.nla_map
    assert type(sched_cake).__name__ == "module"
"""


def test_what_pyroute2_knows_of_each_qdisc_and_filter_is_imported_when_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TC], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


FRAMES: dict[str, Any] = {"udp": udp_frame, "tcp": tcp_frame, "icmp": icmp_frame}
HOST: Any = Host
WRITTEN, NUMBERED = HOST("02:00:00:00:00:09", "192.0.2.9"), HOST(5, CLIENT.ipv4)


@pytest.mark.parametrize(
    ("send", "words"),
    [
        (lambda left: left.traffic.udp(to="192.0.2.2"), "udp: to is '192.0.2.2'; it must be a nam"),
        (lambda left: left.traffic.tcp(to=5), "tcp: to is 5; it must be a namespace"),
        (lambda left: left.traffic.ping(to="right"), "ping: to is 'right'; it must be a namespace"),
        (lambda left: left.traffic.udp(cgroup="/x"), "udp: cgroup is '/x'; it must be a Cgroup"),
        (lambda left: left.traffic.tcp(to_cgroup=1), "tcp: to_cgroup is 1; it must be a Cgroup"),
        (lambda left: left.traffic.udp(payload="text"), "udp: payload is 'text'; it must be bytes"),
        (lambda left: left.traffic.udp(timeout="1"), "timeout is '1' seconds; it must be positive"),
        (lambda left: left.traffic.udp(count=1.5), "udp: count is 1.5; it must be an integer"),
        (lambda left: left.traffic.frames("abc"), "the frame is 'abc'; it must be bytes"),
        (lambda left: left.traffic.flood(7, count=1), "the frame is 7; it must be bytes"),
        (lambda left: left.traffic.frames(bytes(60), to="x"), "frames: to is 'x'; it must be a na"),
        (
            lambda _: FRAMES["udp"](dst="192.0.2.9"),
            "a side of a frame is '192.0.2.9'",
        ),
        (lambda _: FRAMES["tcp"](src=None), "a side of a frame is None; it must be a namespace"),
        (
            lambda _: FRAMES["udp"](dst=WRITTEN),
            "of the module ip",
        ),
        (lambda _: FRAMES["udp"](dst=NUMBERED), "5 is not a hardware address"),
        (lambda _: FRAMES["icmp"](payload="x"), "the payload is 'x'; it must be bytes"),
    ],
)
def test_arguments_of_a_wrong_type(
    send: Callable[[Namespace], object], words: str, bpf_netns_pair: Topology
) -> None:
    with pytest.raises(StimulusError, match=words):
        send(bpf_netns_pair[0])


def test_a_netkit_is_made_or_refused_in_one_sentence(bpf_places: Places) -> None:
    with pytest.raises(PlaceError, match="a cable is a veth or a netkit, not 'bond'"):
        bpf_places.pair(kind="bond")
    with pytest.raises(PlaceError, match="a netkit runs no native XDP; use a veth"):
        bpf_places.pair(kind="netkit", xdp=True)
    try:
        left, right = bpf_places.pair(kind="netkit")
    except UnavailableError as error:
        assert "cannot make a netkit from 'netkit0' to 'netkit0'" in str(error)  # noqa: PT017
    else:
        assert left.traffic.udp(to=right, count=3).received == 3


@pytest.mark.skipif(not features.attach("netkit"), reason="this kernel has no netkit")
def test_what_hangs_on_a_netkit_and_what_is_none(bpf: Loader, bpf_places: Places) -> None:
    left, right = bpf_places.pair(kind="netkit")
    other = bpf_places.pair()["left"]
    obj = bpf.load(HEADER + NETKIT, name="netkit")
    link = obj.programs["sent"].attach(left.iface)
    obj.programs["answered"].attach(left.iface)
    assert left.traffic.udp(to=right, count=3, echo=True).received == 3
    assert (obj.globals["requests"], obj.globals["answers"]) == (3, 3)
    assert [each.hook for each in bpf.query(left.iface)] == ["netkit_primary", "netkit_peer"]
    assert bpf.query(right.iface) == bpf.query(other.iface) == []
    for iface, words in (
        (left.iface, "EEXIST: .*; this program is attached there already"),
        (right.iface, "EACCES: .*; that is the peer of a netkit: both kinds attach to the primary"),
        (other.iface, "ENXIO: .*; that interface is no netkit, make one by bpf_places.pair"),
    ):
        with pytest.raises(AttachError, match=words):
            obj.programs["sent"].attach(iface)
    link.detach()
    assert [each.hook for each in bpf.query(left.iface)] == ["netkit_peer"]

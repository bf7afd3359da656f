"""Every packet is accounted for: what was sent arrived, or is a drop, whatever way it took."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.kernel.btf.drop_reasons import plain_name
from pytest_bpf.netns import impair
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.drops import Drops
    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Namespace, Topology
    from pytest_bpf.netns.places import Places
    from pytest_bpf.objects import Object

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

PROGRAMS = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 4);
         __type(key, __u32); __type(value, struct bpf_devmap_val); } ports SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 4);
         __type(key, __u32); __type(value, struct bpf_cpumap_val); } cpus SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_XSKMAP); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u32); } sockets SEC(".maps");
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int aborted(struct xdp_md *ctx) { return XDP_ABORTED; }
SEC("xdp") int unknown(struct xdp_md *ctx) { return 99; }
SEC("xdp") int tx(struct xdp_md *ctx) { return XDP_TX; }
SEC("xdp") int nowhere(struct xdp_md *ctx) { return bpf_redirect(4242, 0); }
SEC("xdp") int bare(struct xdp_md *ctx) { return XDP_REDIRECT; }
SEC("xdp") int back(struct xdp_md *ctx) { return bpf_redirect(ctx->ingress_ifindex, 0); }
SEC("xdp") int devmap(struct xdp_md *ctx) { return bpf_redirect_map(&ports, 0, 0); }
SEC("xdp") int broadcast(struct xdp_md *ctx)
{ return bpf_redirect_map(&ports, 0, BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS); }
SEC("xdp") int cpumap(struct xdp_md *ctx) { return bpf_redirect_map(&cpus, 0, 0); }
SEC("xdp") int empty(struct xdp_md *ctx) { return bpf_redirect_map(&ports, 3, 0); }
SEC("xdp") int xskmap(struct xdp_md *ctx) { return bpf_redirect_map(&sockets, 0, XDP_DROP); }
SEC("xdp/devmap") int devmap_drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp/cpumap") int cpumap_drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("tc") int shot(struct __sk_buff *skb) { return 2; }
SEC("tc") int tc_nowhere(struct __sk_buff *skb) { return bpf_redirect(4242, 0); }
SEC("tc") int other(struct __sk_buff *skb) { return 99; }
SEC("tc") int stolen(struct __sk_buff *skb) { return 4; }
SEC("tc") int queued(struct __sk_buff *skb) { return 5; }
SEC("tc") int repeat(struct __sk_buff *skb) { return 6; }
SEC("tc") int trap(struct __sk_buff *skb) { return 8; }
SEC("tc") int redirect(struct __sk_buff *skb) { return 7; }
SEC("cgroup_skb/egress") int refuse(struct __sk_buff *skb) { return 0; }
SEC("cgroup_skb/ingress") int refuse_in(struct __sk_buff *skb) { return 0; }
SEC("sk_lookup") int no_socket(struct bpf_sk_lookup *ctx) { return 0; }
SEC("socket") int filter(struct __sk_buff *skb) { return 0; }
"""
NEWER = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("tcx/ingress") int tcx_shot(struct __sk_buff *skb) { return 2; }
SEC("tcx/ingress") int tcx_stolen(struct __sk_buff *skb) { return 4; }
SEC("netfilter") int no_packet(struct bpf_nf_ctx *ctx) { return 0; }
"""
"""For kernels since 6.4 and 6.6; the others skip what needs these alone."""

COUNT = 20


@pytest.fixture
def programs(bpf: Loader) -> Object:
    return bpf.load(PROGRAMS, name="paths")


@pytest.fixture
def path(bpf_places: Places) -> Topology:
    return bpf_places.router()


def accounted(path: Topology, drops: Drops, count: int = COUNT) -> Any:
    """Send from left to right, and see that all of it arrived or was dropped.

    A kernel thread that has packets of a cpumap may still wait for its turn.
    """
    left, _, right = path
    result = left.traffic.udp(to=right, count=count)
    deadline = time.monotonic() + 120
    while result.received + drops.total < result.sent and time.monotonic() < deadline:
        os.sched_yield()
    assert result.received + drops.total == result.sent, repr(drops)
    return result


@pytest.mark.parametrize("peer", ["without NAPI", "with NAPI"])
@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize(
    "program",
    ["pass", "drop", "aborted", "unknown", "tx", "nowhere", "bare", "back", "empty", "xskmap"],
)
def test_xdp(
    program: str, mode: str, peer: str, *, programs: Object, path: Topology, bpf_drops: Drops
) -> None:
    left, router, _ = path
    if peer == "with NAPI":
        programs.programs["pass"].attach(left.iface, mode="native")
    programs.programs[program].attach(router.interfaces["left"], mode=mode)
    result = accounted(path, bpf_drops)
    assert result.received == (COUNT if program == "pass" else 0)
    native = {"tx": "XDP_TX", "nowhere": "XDP_REDIRECT", "bare": "XDP_REDIRECT"}
    if mode == "native" and program in native and (program, peer) != ("tx", "with NAPI"):
        assert bpf_drops.reasons == {native[program]: COUNT}


def add_port(router: Namespace, programs: Object, program: str = "") -> None:
    fd = programs.programs[program].fd if program else -1
    entry = {"ifindex": router.interfaces["right"].ifindex, "bpf_prog": {"fd": fd}}
    router.run(programs.maps["ports"].__setitem__, 0, entry)


@pytest.mark.parametrize("peer", ["without NAPI", "with NAPI"])
@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("entry", ["", "devmap_drop"])
def test_devmap(
    entry: str, mode: str, peer: str, *, programs: Object, path: Topology, bpf_drops: Drops
) -> None:
    _, router, right = path
    if peer == "with NAPI":
        programs.programs["pass"].attach(right.iface, mode="native")
    add_port(router, programs, entry)
    programs.programs["devmap"].attach(router.interfaces["left"], mode=mode)
    accounted(path, bpf_drops)
    if mode == "native" and peer == "without NAPI":
        assert set(bpf_drops.reasons) <= {"XDP_REDIRECT", "XDP_DEVMAP"}  # by kernel
        assert bpf_drops.total == COUNT
    elif mode == "native" and entry:
        assert bpf_drops.reasons == {"XDP_DEVMAP": COUNT}


@pytest.mark.parametrize("peer", ["without NAPI", "with NAPI", "none"])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_broadcasts(
    mode: str, peer: str, programs: Object, path: Topology, bpf_drops: Drops
) -> None:
    _, router, right = path
    if peer == "with NAPI":
        programs.programs["pass"].attach(right.iface, mode="native")
    if peer != "none":
        add_port(router, programs)
    programs.programs["broadcast"].attach(router.interfaces["left"], mode=mode)
    result = accounted(path, bpf_drops)
    if peer == "none":
        assert (result.received, bpf_drops.reasons) == (0, {"XDP_DEVMAP": COUNT})


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("entry", ["", "cpumap_drop"])
@pytest.mark.parametrize("room", [1, 192])
def test_cpumap(
    room: int, entry: str, mode: str, *, programs: Object, path: Topology, bpf_drops: Drops
) -> None:
    fd = programs.programs[entry].fd if entry else -1
    programs.maps["cpus"][0] = {"qsize": room, "bpf_prog": {"fd": fd}}
    programs.programs["cpumap"].attach(path["router"].interfaces["left"], mode=mode)
    result = accounted(path, bpf_drops, 100)
    if mode == "native" and entry:
        assert bpf_drops.reasons == {"XDP_CPUMAP": 100}
    elif mode == "generic" and room > 100 and not entry:
        assert result.received == 100


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_frames_larger_than_the_mtu(
    mode: str, programs: Object, path: Topology, bpf_drops: Drops
) -> None:
    left, router, right = path
    programs.programs["pass"].attach(right.iface, mode="native")
    add_port(router, programs)
    router.popen(["ip", "link", "set", "dev", "right", "mtu", "600"]).wait(60)
    programs.programs["devmap"].attach(router.interfaces["left"], mode=mode)
    result = left.traffic.udp(to=right, count=COUNT, size=1000)
    assert (result.received, bpf_drops.total) == (0, COUNT), repr(bpf_drops)


def test_packets_larger_than_the_mtu_of_the_next_hop(path: Topology, bpf_drops: Drops) -> None:
    left, router, right = path
    router.popen(["ip", "link", "set", "dev", "right", "mtu", "600"]).wait(60)
    frame = bytearray(udp_frame(left.iface, right.iface, dport=9, payload=bytes(1000)))
    frame[:6] = bytes.fromhex(router.interfaces["left"].mac.replace(":", ""))
    frame[20] |= 0x40  # do not fragment
    frame[24:26] = b"\0\0"
    words = sum(int.from_bytes(frame[at : at + 2], "big") for at in range(14, 34, 2))
    frame[24:26] = (0xFFFF - (words % 0xFFFF)).to_bytes(2, "big")
    left.traffic.frames(bytes(frame), count=COUNT, to=router)
    assert bpf_drops.reasons == {"PKT_TOO_BIG": COUNT}


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize(
    "program", ["shot", "tc_nowhere", "other", "stolen", "queued", "repeat", "trap", "redirect"]
)
def test_tc(
    program: str, direction: str, programs: Object, path: Topology, bpf_drops: Drops
) -> None:
    port = path["router"].interfaces["left" if direction == "ingress" else "right"]
    programs.programs[program].attach(port, direction=direction)
    accounted(path, bpf_drops)
    if program in {"stolen", "trap"}:
        assert bpf_drops.reasons == {"TC_STOLEN": COUNT}
        assert bpf_drops.tc == 0


@pytest.mark.parametrize("program", ["tcx_shot", "tcx_stolen"])
def test_tcx(program: str, bpf: Loader, path: Topology, bpf_drops: Drops) -> None:
    bpf.load(NEWER, name="newer").programs[program].attach(path["router"].interfaces["left"])
    result = accounted(path, bpf_drops)
    assert result.received == (0 if program == "tcx_shot" else COUNT)


@pytest.mark.parametrize("queues", [1, 2])
@pytest.mark.parametrize("program", ["tx", "back"])
def test_frames_that_wait_at_a_peer_that_nothing_wakes_up(
    program: str, queues: int, *, programs: Object, bpf_places: Places, bpf_drops: Drops
) -> None:
    left, right = bpf_places.pair(xdp=True, queues=queues)
    programs.programs[program].attach(right.iface, mode="native")
    left.popen(["ip", "link", "set", "dev", "veth0", "xdpdrv", "off"]).wait(60)
    result = left.traffic.udp(to=right, count=COUNT)
    assert (result.received, bpf_drops.total) == (0, COUNT), repr(bpf_drops)
    if program == "back":
        return
    assert bpf_drops["right"].reasons == {"XDP_TX": COUNT}
    macs = (bytes.fromhex(iface.mac.replace(":", "")) for iface in (left.iface, right.iface))
    right.traffic.frames(b"".join(macs) + b"\x88\xb5" + bytes(50), count=1, to=left)
    if queues == 1:  # that woke it up: the frames went on, and are for another MAC
        assert bpf_drops.reasons == {"OTHERHOST": COUNT}


@pytest.mark.parametrize(
    ("namespace", "hook"),
    [("router", "pre_routing"), ("right", "local_in"), ("router", "forward")],
)
def test_netfilter(
    namespace: str, hook: str, bpf: Loader, path: Topology, bpf_drops: Drops
) -> None:
    bpf.load(NEWER, name="newer").programs["no_packet"].attach(path[namespace], hook=hook)
    assert accounted(path, bpf_drops).received == 0


def test_socket_lookups(programs: Object, path: Topology, bpf_drops: Drops) -> None:
    programs.programs["no_socket"].attach(path["right"])
    assert accounted(path, bpf_drops).received == 0


@pytest.mark.parametrize("program", ["refuse", "refuse_in"])
def test_cgroups(
    program: str, programs: Object, path: Topology, bpf_drops: Drops, bpf_cgroup: Any
) -> None:
    left, _, right = path
    programs.programs[program].attach(bpf_cgroup)
    end = {"cgroup" if program == "refuse" else "to_cgroup": bpf_cgroup}
    result = left.traffic.udp(to=right, count=COUNT, **end)
    assert (result.received, bpf_drops.total) == (0, COUNT), repr(bpf_drops)


def closed_port(left: Namespace, right: Namespace, _: Object) -> int:
    for _sent in range(COUNT):
        with left.socket(type=2) as sender:
            sender.sendto(b"x", (str(right.ipv4), 4242))
    return 0


def filtered_socket(left: Namespace, right: Namespace, programs: Object) -> int:
    with right.socket(type=2) as receiver, left.socket(type=2) as sender:
        receiver.bind((str(right.ipv4), 4242))
        programs.programs["filter"].attach(receiver)
        for _ in range(COUNT):
            sender.sendto(b"x", (str(right.ipv4), 4242))
    return 0


def wrong_checksum(left: Namespace, right: Namespace, _: Object) -> int:
    frame = bytearray(udp_frame(left.iface, right.iface, dport=4242, payload=b"wrong"))
    frame[:6] = bytes.fromhex("026270660002")
    frame[40] ^= 0x55
    with right.traffic.sink("udp", 4242) as end:
        left.traffic.frames(bytes(frame), count=COUNT)
    return end.received


def wrong_ip_checksum(left: Namespace, right: Namespace, _: Object) -> int:
    frame = bytearray(udp_frame(left.iface, right.iface, dport=4242))
    frame[:6] = bytes.fromhex("026270660002")
    frame[24] ^= 0x55
    left.traffic.frames(bytes(frame), count=COUNT)
    return 0


@pytest.mark.parametrize("send", [closed_port, filtered_socket, wrong_checksum, wrong_ip_checksum])
def test_sockets_and_checksums(
    send: Callable[[Namespace, Namespace, Object], int],
    programs: Object,
    path: Topology,
    bpf_drops: Drops,
) -> None:
    left, _, right = path
    assert send(left, right, programs) + bpf_drops.total == COUNT, repr(bpf_drops)


def test_losses_of_a_cable(path: Topology, bpf_drops: Drops) -> None:
    left, *_ = path
    impair(left.iface, loss=0.5)
    accounted(path, bpf_drops, 200)


@pytest.mark.parametrize(
    "symbol", ["veth_poll", "veth_poll [veth]", "veth_poll.isra.0", "veth_poll+1"]
)
def test_a_function_has_its_own_name_in_a_module_too(symbol: str) -> None:
    assert plain_name(symbol) == "veth_poll"

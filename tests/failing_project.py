"""A project whose tests fail on purpose, each by a mistake that people make."""

from __future__ import annotations

C = r"""
#include "vmlinux.h"
#define TC_ACT_SHOT 2
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} seen SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u64);
} ports SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} runs SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u32);
} jumps SEC(".maps");
int total;

SEC("xdp") int count(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *n = bpf_map_lookup_elem(&seen, &key);
    if (n) (*n)++;
    total++;
    bpf_printk("count saw packet %d", total);
    return XDP_PASS;
}
SEC("xdp") int by_port(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct udphdr *udp = data + 34;
    if ((void *)(udp + 1) > end) return XDP_PASS;
    __u32 port = udp->dest;
    __u64 one = 1;
    bpf_map_update_elem(&ports, &port, &one, BPF_ANY);
    return XDP_PASS;
}
SEC("xdp") int block(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct udphdr *udp = data + 34;
    if ((void *)(udp + 1) > end) return XDP_PASS;
    if (udp->dest == 8080) return XDP_DROP;
    return XDP_PASS;
}
SEC("xdp") int rewrite(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct udphdr *udp = data + 34;
    if ((void *)(udp + 1) > end) return XDP_PASS;
    struct iphdr *ip = data + 14;
    if (ip->protocol == 17)
        udp->source = bpf_htons(bpf_ntohs(udp->source) + 1);
    return XDP_PASS;
}
SEC("xdp") int report(struct xdp_md *ctx)
{
    __u64 *e = bpf_ringbuf_reserve(&events, 256, 0);
    if (!e) return XDP_PASS;
    *e = 1;
    bpf_ringbuf_submit(e, 0);
    return XDP_PASS;
}
SEC("xdp") int jump(struct xdp_md *ctx)
{
    bpf_tail_call(ctx, &jumps, 3);
    return XDP_ABORTED;
}
SEC("xdp") int target(struct xdp_md *ctx) { return XDP_DROP; }
SEC("raw_tp/sys_enter") int on_cpu(void *ctx)
{
    __u32 key = 0;
    __u64 *n = bpf_map_lookup_elem(&runs, &key);
    if (n) (*n)++;
    return 0;
}
SEC("xdp") int small(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    if (end - data > 100) return XDP_DROP;
    return XDP_PASS;
}
SEC("tc") int shoot(struct __sk_buff *skb) { return TC_ACT_SHOT; }
SEC("xdp") int costly(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *n = bpf_map_lookup_elem(&seen, &key);
    if (n) (*n)++;
    n = bpf_map_lookup_elem(&seen, &key);
    return n && *n > 5 ? XDP_DROP : XDP_PASS;
}
"""

TESTS = r"""
import struct

import pytest

from pytest_bpf import Loader, XdpAction

IPV4 = bytes(12) + b"\x08\x00" + struct.pack(
    "!BBHHHBBH4s4s", 0x45, 0, 50, 0, 0, 64, 17, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
)


def udp(port):
    return IPV4 + struct.pack("!HHHH", 4000, port, 30, 0) + bytes(22)


def test_never_attached(bpf, bpf_netns_pair):
    left, right = bpf_netns_pair
    obj = bpf.load("failing.bpf.c", programs=["count"])
    left.traffic.udp(to=right, count=5)
    assert obj.maps["seen"][0] == 5


def test_wrong_namespace(bpf, bpf_netns_pair):
    left, right = bpf_netns_pair
    obj = bpf.load("failing.bpf.c", programs=["count"])
    obj.programs["count"].attach(left.iface)
    left.traffic.udp(to=right, count=5)
    assert obj.maps["seen"][0] == 5


def test_port_in_a_map(bpf):
    obj = bpf.load("failing.bpf.c", programs=["by_port"])
    obj.programs["by_port"].test_run(udp(8080))
    assert 8080 in obj.maps["ports"]


def test_port_in_the_program(bpf):
    obj = bpf.load("failing.bpf.c", programs=["block"])
    assert obj.programs["block"].test_run(udp(8080)).retval == XdpAction.XDP_DROP


def test_checksum(bpf, bpf_places):
    left, right = bpf_places.pair(xdp=True)
    obj = bpf.load("failing.bpf.c", programs=["rewrite"])
    obj.programs["rewrite"].attach(right.iface)
    assert left.traffic.udp(to=right, count=5).received == 5


def test_full_map(bpf):
    obj = bpf.load("failing.bpf.c", programs=["by_port"])
    for port in range(1, 9):
        obj.programs["by_port"].test_run(udp(port))
    assert len(obj.maps["ports"]) == 8


def test_lost_events(bpf):
    obj = bpf.load("failing.bpf.c", programs=["report"])
    events = obj.maps["events"].events()
    for _ in range(40):
        obj.programs["report"].test_run(bytes(64))
    assert len(events.read()) == 40


def test_wrong_index(bpf):
    obj = bpf.load("failing.bpf.c", programs=["jump", "target"])
    obj.maps["jumps"][2] = obj.programs["target"]
    assert obj.programs["jump"].test_run(bytes(64)).retval == XdpAction.XDP_DROP


def test_wrong_cpu(bpf):
    obj = bpf.load("failing.bpf.c", programs=["on_cpu"])
    obj.programs["on_cpu"].test_run(context=[1, 2], cpu=1)
    assert obj.maps["runs"][0][0] == 1


def test_off_by_one(bpf):
    obj = bpf.load("failing.bpf.c", programs=["small"])
    assert obj.programs["small"].test_run(bytes(100)).retval == XdpAction.XDP_DROP


def test_wrong_verdict(bpf):
    obj = bpf.load("failing.bpf.c", programs=["count"])
    assert obj.programs["count"].test_run(bytes(64)).retval == XdpAction.XDP_DROP


def test_stale_pin(bpf, bpf_pins):
    with Loader() as earlier:
        old = earlier.load("failing.bpf.c", programs=["by_port"])
        old.programs["by_port"].test_run(udp(53))
        old.maps["ports"].pin(bpf_pins / "ports")
    obj = bpf.load("failing.bpf.c", programs=["by_port"], pins={"ports": bpf_pins / "ports"})
    assert len(obj.maps["ports"]) == 0


@pytest.mark.bpf_budget(program="costly", verified_insns=20)
def test_one_lookup_more(bpf):
    obj = bpf.load("failing.bpf.c", programs=["costly"])
    obj.programs["costly"].test_run(bytes(64))


def test_interface_gone(bpf, bpf_netns_pair):
    left, right = bpf_netns_pair
    obj = bpf.load("failing.bpf.c", programs=["count"])
    obj.programs["count"].attach(right.iface)
    left.ipr.link("del", index=left.iface.ifindex)
    assert obj.maps["seen"][0] == 5


def test_all_gone(bpf, bpf_netns_pair):
    obj = bpf.load("failing.bpf.c", programs=["count"])
    obj.close()
    bpf_netns_pair.close()
    raise AssertionError


def test_flood_of_printk(bpf):
    obj = bpf.load("failing.bpf.c", programs=["count"])
    obj.programs["count"].test_run(bytes(64), repeat=100_000)
    assert obj.globals["total"] == 1


def test_large_map(bpf):
    obj = bpf.load("failing.bpf.c", programs=["by_port"], max_entries={"ports": 50_000})
    obj.maps["ports"].update_many(range(50_000), range(50_000))
    assert len(obj.maps["ports"]) == 1


def test_shot_by_tc(bpf, bpf_netns_pair):
    left, right = bpf_netns_pair
    obj = bpf.load("failing.bpf.c", programs=["shoot"])
    obj.programs["shoot"].attach(right.iface, direction="ingress", mode="clsact")
    assert left.traffic.udp(to=right, count=5).received == 5


def test_detached(bpf, bpf_netns_pair):
    left, right = bpf_netns_pair
    obj = bpf.load("failing.bpf.c", programs=["count"])
    with obj.programs["count"].attach(right.iface):
        pass
    left.traffic.udp(to=right, count=5)
    assert obj.maps["seen"][0] == 5

"""

CONFTEST = """
import json


def pytest_runtest_logreport(report):
    if report.when == "call":
        with open("sections.jsonl", "a") as file:
            print(json.dumps([report.nodeid.partition("::")[2], report.sections]), file=file)
"""
"""Writes the sections of each test's report to a file."""

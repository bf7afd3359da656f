"""BPF_PROG_RUN: programs run without being attached."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import (
    LoadError,
    NotMeasuredError,
    RunError,
    UnavailableError,
    ValueTypeError,
)
from pytest_bpf.kernel.layers.packet import Packet
from pytest_bpf.kernel.programs import run_time_stats
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys.perf_event import online_cpus
from pytest_bpf.kernel.values.actions import RetCode, SkAction, TcAction, XdpAction
from pytest_bpf.loader import Loader
from pytest_bpf.netns import pair
from pytest_bpf.objects import Program
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
__u64 runs; __u32 cpu;
SEC("xdp") int cut(struct xdp_md *ctx) {
    runs++; return bpf_xdp_adjust_tail(ctx, -10) ? XDP_ABORTED : XDP_TX; }
SEC("xdp") int grow(struct xdp_md *ctx) {
    return bpf_xdp_adjust_head(ctx, -20) ? XDP_ABORTED : XDP_TX; }
SEC("xdp") int where(struct xdp_md *ctx) { return ctx->ingress_ifindex * 100; }
SEC("xdp") int move(struct xdp_md *ctx) { return bpf_xdp_adjust_meta(ctx, -4) ? 0 : XDP_PASS; }
SEC("tc") int mark(struct __sk_buff *skb) {
    skb->cb[0] = skb->len; skb->mark = skb->mark + 1; skb->priority = 3; return 7; }
SEC("raw_tp") int add(struct bpf_raw_tracepoint_args *ctx) {
    runs++; cpu = bpf_get_smp_processor_id(); return ctx->args[0] + 2 * ctx->args[1]; }
struct order { __u32 number; char name[8]; __u64 answer; };
SEC("syscall") int execute(struct order *order) {
    runs++; order->answer = order->number * 2ULL; order->name[0] = 'X'; return 5; }
SEC("cgroup_skb/ingress") int length(struct __sk_buff *skb) { return skb->len & 1; }
SEC("socket") int filter(struct __sk_buff *skb) { return skb->len; }
SEC("flow_dissector") int dissect(struct __sk_buff *skb) {
    struct bpf_flow_keys *keys = skb->flow_keys;
    keys->ip_proto = 17; keys->sport = bpf_htons(4242); return BPF_OK; }
SEC("kprobe") int probe(void *ctx) { return 0; }
SEC("sockops") int operations(struct bpf_sock_ops *ctx) { return 1; }
SEC("tp_btf/sys_enter") int traced(__u64 *ctx) { runs++; return 0; }
SEC("iter/task") int tasks(struct bpf_iter__task *ctx) { return 0; }
SEC("xdp/devmap") int behind(struct xdp_md *ctx) { return XDP_PASS; }
SEC("sk_lookup") int choose(struct bpf_sk_lookup *ctx) { return SK_PASS; }
"""
FRAME = bytes(range(60))


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(SOURCE)


def run(obj: Object, name: str, *arguments: Any, **options: Any) -> Any:
    return obj.programs[name].test_run(*arguments, **options)


def test_packets_come_back_changed(obj: Object) -> None:
    result = run(obj, "cut", FRAME)
    assert (result.retval, result.data_out, result.context) == (3, FRAME[:50], None)
    grown = run(obj, "grow", FRAME)
    assert (len(grown.data_out), grown.data_out[20:]) == (80, FRAME)
    assert run(obj, "cut", bytearray(FRAME)).data_out == FRAME[:50]
    large = bytes(3000)
    assert run(obj, "cut", large).data_out == large[:-10]


def test_a_packet_comes_back_by_layers(obj: Object) -> None:
    run = obj.programs["mark"].test_run(Packet(udp_frame(ttl=63)).scapy())
    assert run.packet.ip.ttl == 63
    assert run.packet.differences(udp_frame(ttl=64))[0] == "ip.ttl: 63, not 64"
    with pytest.raises(RunError, match="gave no packet back"):
        _ = obj.programs["add"].test_run(context=[1, 2]).packet


def test_a_packet_without_ethernet_comes_back_by_layers(load: Load) -> None:
    program = load(
        'SEC("cgroup_skb/egress") int pass_on(struct __sk_buff *skb) { return 1; }'
    ).programs["pass_on"]
    for frame in (udp_frame(ttl=63, payload=bytes(20)), udp_frame(ipv6=True)):
        packet = program.test_run(frame).packet
        assert packet.layers == Packet(frame).layers
        assert packet.faults == ()
        assert all(line.startswith("eth.") for line in packet.differences(frame))


def test_the_context_of_xdp(obj: Object) -> None:
    result = run(obj, "where", FRAME, {"ingress_ifindex": 1, "data_end": 60})
    assert result.retval == 100
    assert result.context.ingress_ifindex == 1
    moved = run(obj, "move", FRAME, {"data": 4, "data_end": 60})
    assert moved.retval == 2
    assert moved.context.data_meta == 0
    assert (moved.context.data, moved.context.data_end) == (8, 64)


def test_the_context_of_tc(obj: Object) -> None:
    result = run(obj, "mark", FRAME, {"mark": 41})
    assert result.retval == 7
    assert (result.context.mark, result.context.priority) == (42, 3)
    assert result.context.cb[0] == len(FRAME)
    assert run(obj, "mark", FRAME, result.context).context.mark == 43


def test_arguments_of_a_raw_tracepoint(obj: Object) -> None:
    assert run(obj, "add", context=(3, 4)).retval == 11
    assert run(obj, "add", context=(3, 4)).context is None, "the kernel gives none back"
    assert run(obj, "add", context=[2**32 - 1, 1]).retval == 1
    assert run(obj, "add", context=(-1, 4)).retval == 7
    assert run(obj, "add", context=struct.pack("=QQ", 1, 1)).retval == 3
    for cpu in online_cpus():
        run(obj, "add", context=(0, 0), cpu=cpu)
        assert obj.globals["cpu"] == cpu


def test_a_syscall_program_changes_its_argument(obj: Object) -> None:
    result = run(obj, "execute", context={"number": 21, "name": "abc"})
    assert result.retval == 5
    assert result.context == (21, "Xbc", 42)
    assert run(obj, "execute", context=(1, "", 0)).context.answer == 2


def test_other_kinds(obj: Object) -> None:
    assert run(obj, "length", FRAME + b"x").retval == 1
    assert run(obj, "filter", FRAME).retval == len(FRAME) - 14
    ethernet_ip_udp = bytes(12) + b"\x08\x00" + b"\x45" + bytes(60)
    keys = run(obj, "dissect", ethernet_ip_udp)
    assert keys.retval == 0
    assert len(keys.data_out) == 56


@pytest.mark.parametrize("context", [None, {"flags": 1}])
def test_a_flow_dissector_gives_its_keys_back(obj: Object, context: Any) -> None:
    result = run(obj, "dissect", FRAME, context=context)
    assert result.context.ip_proto == 17
    assert result.context.sport == socket.htons(4242)
    assert result.context.flags == (context or {"flags": 0})["flags"]
    with pytest.raises(RunError, match="its keys back, no packet: see context"):
        result.packet  # noqa: B018


def test_repeating(obj: Object) -> None:
    contexts: dict[str, Any] = {"add": (0, 0), "execute": {"number": 1}}
    for name, context in contexts.items():
        before = obj.globals["runs"]
        run(obj, name, context=context, repeat=10)
        assert obj.globals["runs"] == before + 10
    assert 0 < run(obj, "where", FRAME, repeat=1000).duration_ns < 100_000


def test_live_frames_are_sent(load: Load) -> None:
    """1000 frames out of the left end arrive at an XDP program on the right one."""
    count = '__u64 hits, bytes; SEC("xdp") int count(struct xdp_md *ctx) { hits++; %s }'
    with pair() as (left, right):
        sender, receiver = load(count % "return XDP_TX;"), load(count % "return XDP_DROP;")
        idle = load('SEC("xdp") int idle(struct xdp_md *ctx) { return XDP_PASS; }')
        frame = bytes.fromhex(
            (right.iface.mac + left.iface.mac).replace(":", "") + "88b5" + "00" * 46
        )
        with (
            receiver.programs["count"].attach(right.iface, mode="native"),
            idle.programs["idle"].attach(left.iface, mode="native"),
        ):
            result = left.run(
                sender.programs["count"].test_run,
                frame, {"ingress_ifindex": left.iface.ifindex, "data_end": len(frame)},
                live=True, repeat=1000, batch_size=64,
            )  # fmt: skip
            assert result.data_out == b""
            assert result.retval is None, "the kernel tells no verdict of live frames"
            assert sender.globals["hits"] == 1000
            assert receiver.globals["hits"] == 1000


def test_refusals_say_why(obj: Object) -> None:
    for name, arguments, options, words in (
        ("probe", (), {}, "'probe' .kprobe. cannot be test-run .* no test run for kprobe programs"),
        ("operations", (), {}, "no test run for sock_ops programs, attach it instead"),
        ("cut", (b"x" * 5,), {}, "with 5 bytes of data: EINVAL.*at least an Ethernet header, 14"),
        ("cut", (), {}, "with 0 bytes of data.*14 bytes"),
        ("cut", (bytes(100_000),), {}, "(ENOMEM.*in 17 pages and the one before|page of 4096)"),
        (
            "cut",
            (FRAME, {"data": 8, "data_end": 70}),
            {},
            r"does not take these members of the context: data .*, data_end \(the length",
        ),
        ("add", (b"", (1, 2)), {"cpu": 4096}, "CPU 4096 is not online"),
        ("add", (b"", (1,) * 13), {}, "at most 12: not 13"),
        (
            "add",
            (b"", (1,)),
            {},
            "a context of its arguments, at most 12: it got 1, and reads more",
        ),
        ("add", (), {}, "it got 0, and reads more"),
        ("execute", (), {}, "reads more of its context than the 0 bytes that it got"),
        ("execute", (b"", b"abc"), {}, "reads more of its context than the 3 bytes that it got"),
        ("cut", (FRAME,), {"live": True, "batch_size": 10**6}, "batch_size is at most 256"),
        ("cut", (FRAME,), {"batch_size": 4}, "batch_size= is for live=True"),
        ("mark", (FRAME,), {"live": True}, "live=True is for xdp programs"),
        ("cut", (FRAME,), {"cpu": 0}, "cpu= is for raw tracepoints: pin the thread"),
        ("mark", (bytes(5000),), {}, "must fit into a page of 4096 bytes"),
        ("behind", (FRAME,), {}, "no test run for xdp_devmap programs, attach it instead"),
        ("traced", (), {}, "no test run for tp_btf programs, attach it instead"),
        ("tasks", (), {}, "no test run for iter programs, attach it instead"),
        ("choose", (), {}, "its context says the address family: {'family': socket.AF_INET, "),
        ("choose", (b"", {"remote_port": 7}), {}, "its context says the address family"),
        (
            "choose",
            (b"", {"family": 2, "remote_port": 7, "cookie": 1}),
            {},
            r"of the context: sk \(must be 0\), cookie \(must be 0\)$",
        ),
    ):
        with pytest.raises(RunError, match=words):
            run(obj, name, *arguments, **options)
    for name, context, words in (
        (
            "where",
            {"ingress_if": 1},
            "struct xdp_md has no member 'ingress_if'; did you mean 'ingr",
        ),
        ("where", {"rx_queue_index": -1}, "context of 'where'.rx_queue_index: -1 does not fit"),
        ("execute", {"name": "too long for it"}, r"15 bytes given, char\[8\] has 8"),
        ("add", {"args": 1}, "a raw tracepoint takes a sequence of its arguments"),
        ("add", ("x",), "a raw tracepoint takes a sequence of its arguments"),
    ):
        with pytest.raises(ValueTypeError, match=words):
            run(obj, name, FRAME if name == "where" else b"", context)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"repeat": 0}, "repeat=0"), ({"repeat": -1}, "repeat=-1"), ({"cpu": -1}, "cpu=-1")],
)
def test_numbers_out_of_range(obj: Object, options: dict[str, int], words: str) -> None:
    with pytest.raises(RunError, match=words):
        run(obj, "add", context=(1, 2), **options)


def test_a_closed_program_does_not_run(load: Load) -> None:
    obj = load('SEC("xdp") int gone(struct xdp_md *ctx) { return 0; }')
    program = obj.programs["gone"]
    obj.close()
    for use in (lambda: program.test_run(FRAME), program.attach, lambda: program.info):
        with pytest.raises(LoadError, match="program 'gone' is gone: its object was closed"):
            use()


KINDS = """
SEC("tc") int unspecified(struct __sk_buff *skb) { return TC_ACT_UNSPEC; }
SEC("tc") int redirect(struct __sk_buff *skb) { return TC_ACT_REDIRECT; }
SEC("tc") int odd(struct __sk_buff *skb) { return 99; }
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int minus(struct xdp_md *ctx) { return -2; }
SEC("sk_lookup") int choose(struct bpf_sk_lookup *ctx) { return SK_DROP; }
SEC("raw_tp") int refuse(void *ctx) { return -2; }
SEC("cgroup_skb/egress") int allow(struct __sk_buff *skb) { return 1; }
SEC("lwt_xmit") int reroute(struct __sk_buff *skb) { return BPF_LWT_REROUTE; }
SEC("flow_dissector") int dissect_on(struct __sk_buff *skb) { return 129; }
"""


@pytest.mark.parametrize(
    ("program", "value", "name"),
    [
        ("unspecified", TcAction.TC_ACT_UNSPEC, "TC_ACT_UNSPEC"),
        ("redirect", TcAction.TC_ACT_REDIRECT, "TC_ACT_REDIRECT"),
        ("odd", 99, "99"),
        ("pass", XdpAction.XDP_PASS, "XDP_PASS"),
        ("minus", -2, "-2"),
        ("choose", SkAction.SK_DROP, "SK_DROP"),
        ("refuse", -errno.ENOENT, "-2"),
        ("allow", 1, "1"),
        ("reroute", RetCode.BPF_LWT_REROUTE, "BPF_LWT_REROUTE"),
        ("dissect_on", 129, "BPF_FLOW_DISSECTOR_CONTINUE"),
    ],
)
def test_return_values_are_signed_and_named(
    load_once: Load, program: str, value: int, name: str
) -> None:
    definition = "#define TC_ACT_UNSPEC (-1)\n#define TC_ACT_REDIRECT 7\n"
    contexts = {"refuse": (0,), "choose": {"family": socket.AF_INET, "protocol": 17}}
    context = contexts.get(program)
    frame = FRAME if context is None else b""
    result = load_once(definition + KINDS).programs[program].test_run(frame, context)
    assert result.retval == value
    assert name in repr(result.retval)


@pytest.mark.parametrize(
    ("section", "value", "name"),
    [
        ("netkit/primary", -1, "NETKIT_NEXT"),
        ("netfilter", 0, "NF_DROP"),
        ("netfilter", 1, "ACCEPT"),
    ],
)
def test_verdicts_of_newer_kinds_are_named(load: Load, section: str, value: int, name: str) -> None:
    try:
        obj = load(f'SEC("{section}") int decide(void *ctx) {{ return {value}; }}')
    except (LoadError, UnavailableError) as error:
        pytest.skip(str(error))
    retval = obj.programs["decide"].test_run(udp_frame()).retval
    assert retval == value
    assert name in repr(retval)


@pytest.mark.parametrize("section", ["xdp", "tc", "socket"])
@pytest.mark.parametrize("value", [0, 3, 8, 99, -1, -(2**31), 2**31 - 1])
def test_a_run_without_options_says_what_others_say(
    load_once: Load, section: str, value: int
) -> None:
    """It goes another way to the kernel, which is shorter."""
    obj = load_once(f'int value; SEC("{section}") int decide(void *ctx) {{ return value; }}')
    program = obj.programs["decide"]
    obj.globals["value"] = value
    short, long = program.test_run(FRAME), program.test_run(FRAME, repeat=2)
    assert repr(short.retval) == repr(long.retval)
    assert short.data_out == long.data_out
    assert list(program.last_runs)[-2:] == [(FRAME, None, short), (FRAME, None, long)]


LENGTHS = """
__u64 length, metadata;
SEC("xdp") int measure(struct xdp_md *ctx) {
    length = ctx->data_end - ctx->data; metadata = ctx->data - ctx->data_meta; return XDP_PASS; }
"""


@pytest.mark.parametrize(
    ("context", "length", "metadata"),
    [
        ({}, 60, 0),
        ({"ingress_ifindex": 1}, 60, 0),
        ({"data": 4}, 56, 4),
        ({"data": 8, "data_end": 60, "rx_queue_index": 0}, 52, 8),
    ],
)
def test_a_context_without_data_end_has_the_whole_packet(
    load_once: Load, context: dict[str, int], length: int, metadata: int
) -> None:
    obj = load_once(LENGTHS)
    result = obj.programs["measure"].test_run(FRAME, context)
    assert (obj.globals["length"], obj.globals["metadata"]) == (length, metadata)
    assert result.context.data_end == 60
    assert result.data_out == FRAME


def test_live_frames_with_a_context(load_once: Load) -> None:
    obj = load_once(LENGTHS)
    result = obj.programs["measure"].test_run(FRAME, {"ingress_ifindex": 1}, live=True)
    assert obj.globals["length"] == 60
    assert result.context is None, "live frames give none back"


def test_a_context_that_the_kernel_does_not_give_back_is_none(load: Load, obj: Object) -> None:
    try:
        program = load('SEC("netfilter") int pass(void *ctx) { return 1; }').programs["pass"]
    except (LoadError, UnavailableError) as error:
        pytest.skip(str(error))
    run(obj, "mark", FRAME, {"mark": 1})
    assert program.test_run(udp_frame(), {"pf": socket.AF_INET}).context is None


def test_a_context_goes_in_again_when_the_packet_has_grown(obj: Object) -> None:
    first = run(obj, "mark", FRAME, {"mark": 1, "wire_len": 60})
    assert first.context.wire_len == 60
    again = run(obj, "mark", FRAME + bytes(40), first.context)
    assert (again.context.mark, again.context.wire_len) == (3, 100)
    moved = run(obj, "move", FRAME, {"data_end": 60})
    assert run(obj, "where", moved.data_out + bytes(10), moved.context).context.data_end == 74


SHORT = """
typedef unsigned int __u32;
struct __sk_buff { __u32 len, pkt_type, mark, queue_mapping, protocol; };
struct xdp_md { __u32 data, data_end; };
__attribute__((section("tc"), used)) int mark(struct __sk_buff *skb) { return skb->mark; }
__attribute__((section("xdp"), used)) int size(struct xdp_md *ctx) { return 7; }
__attribute__((section("cgroup_skb/egress"), used)) int egress(struct __sk_buff *skb) { return 1; }
__attribute__((section("tc"), used)) int untyped(void *skb) { return 5; }
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


@pytest.mark.parametrize(
    ("program", "context", "member", "value"),
    [
        ("mark", {"mark": 7}, "mark", 7),
        ("mark", {"mark": 7, "wire_len": 90}, "wire_len", 90),
        ("size", {"data_end": 60}, "data_end", 60),
        ("size", {"ingress_ifindex": 1, "data_end": 60}, "ingress_ifindex", 1),
        ("egress", {"mark": 3}, "mark", 3),
        ("untyped", {"priority": 3}, "priority", 3),
    ],
)
def test_contexts_have_the_kernels_size(
    program: str, context: dict[str, int], member: str, value: int
) -> None:
    with Loader() as loader:
        result = loader.load(SHORT).programs[program].test_run(FRAME, context)
    assert getattr(result.context, member) == value


@pytest.mark.parametrize(
    ("program", "context", "names"),
    [
        ("mark", {"tc_index": 9}, ["tc_index"]),
        ("mark", {"mark": 1, "protocol": 8, "priority": 1}, ["protocol"]),
        ("mark", {"wire_len": 9, "hash": 4}, ["wire_len", "hash"]),
        ("mark", {"ifindex": 4000}, ["ifindex"]),
        ("length", {"vlan_tci": 1}, ["vlan_tci"]),
        ("where", {"egress_ifindex": 1, "data_end": 60}, ["egress_ifindex"]),
        ("where", {"ingress_ifindex": 4000, "data_end": 60}, ["ingress_ifindex"]),
        ("where", {"data_end": 61}, ["data_end"]),
    ],
)
def test_refused_members_are_named_and_no_others(
    obj: Object, program: str, context: dict[str, int], names: list[str]
) -> None:
    runs = obj.globals["runs"]
    with pytest.raises(RunError, match="does not take these members") as caught:
        run(obj, program, FRAME, context)
    listed = str(caught.value).partition("members of the context: ")[2]
    assert [name for name in context if f"{name} (" in listed] == names
    assert obj.globals["runs"] == runs


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((60,), {}, "the bytes of a packet, not int 60"),
        (("text",), {}, "the bytes of a packet, not str 'text'"),
        ((FRAME,), {"repeat": {}}, "repeat={}; it is from 1 to"),
        ((FRAME,), {"repeat": 1.5}, "repeat=1.5; it is from 1 to"),
        ((FRAME,), {"cpu": "0"}, "cpu='0'; it is the number of a CPU"),
        ((FRAME,), {"batch_size": None}, "batch_size=None; it is from 0"),
        ((FRAME,), {"netns": "left"}, "netns='left'; it is a Namespace"),
        ((FRAME, {"ingress_ifindex": "eth0"}), {}, "ingress_ifindex: .* takes an int, not str"),
    ],
)
def test_arguments_of_a_wrong_type(
    obj: Object, arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises((RunError, ValueTypeError), match=words):
        run(obj, "where", *arguments, **options)


NAMESPACES = """
__u32 mtu, listening;
SEC("xdp") int ask(struct xdp_md *ctx) {
    __u32 size = 0; bpf_check_mtu(ctx, 0, &size, 0, 0); mtu = size; return XDP_PASS; }
SEC("tc") int look(struct __sk_buff *skb) {
    struct bpf_sock_tuple tuple = {.ipv4 = {
        .daddr = bpf_htonl(0x7f000001), .dport = bpf_htons(4242), .saddr = bpf_htonl(0x7f000001)}};
    struct bpf_sock *sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), -1, 0);
    if (!sk) return 0;
    bpf_sk_release(sk); return 1; }
"""


def test_a_run_is_in_the_namespace_of_the_interface_in_its_context(load_once: Load) -> None:
    obj = load_once(NAMESPACES)
    program = obj.programs["ask"]
    with pair(mtu=1400) as (left, right):
        program.test_run(FRAME, {"ingress_ifindex": right.iface, "data_end": 60})
        assert obj.globals["mtu"] == 1400
        program.test_run(FRAME, {"ingress_ifindex": right.iface, "data_end": 60}, netns=right)
        with pytest.raises(RunError, match=r"netns is 'left', but an interface .* is in 'right'"):
            program.test_run(FRAME, {"ingress_ifindex": right.iface}, netns=left)


def test_sockets_are_looked_up_in_the_namespace_of_a_run(load_once: Load) -> None:
    program = load_once(NAMESPACES).programs["look"]
    with pair() as (left, right), right.socket() as listening:
        listening.bind(("127.0.0.1", 4242))
        listening.listen()
        assert program.test_run(FRAME, netns=right).retval == 1
        assert program.test_run(FRAME, netns=left).retval == 0
        assert program.test_run(FRAME).retval == 0


def read_until_off(program: Program, figure: str) -> None:
    """Read a figure that raises as soon as no other process has the statistics on."""
    for _ in range(600):
        assert getattr(program, figure) == 0
        time.sleep(0.1)


def test_runs_are_counted_or_said_not_to_be(load: Load) -> None:
    program = load('SEC("xdp") int once(struct xdp_md *ctx) { return XDP_PASS; }').programs["once"]
    with statistics():
        before = program.run_cnt
        program.test_run(FRAME)
    assert program.run_cnt == before + 1
    other = load('SEC("xdp") int two(struct xdp_md *ctx) { return XDP_PASS; }').programs["two"]
    if Path("/proc/sys/kernel/bpf_stats_enabled").read_text() != "0\n":
        pytest.skip("not measured: kernel.bpf_stats_enabled has the statistics on")
    for figure in ("run_cnt", "run_time_ns"):
        with pytest.raises(NotMeasuredError, match=f"{figure} is not counted.*statistics"):
            read_until_off(other, figure)


def test_a_program_without_a_log_has_no_verifier_statistics(load: Load) -> None:
    program = load('SEC("xdp") int own(struct xdp_md *ctx) { return XDP_PASS; }').programs["own"]
    other = Program.from_fd(os.dup(program.fd))
    assert other.verified_insns == program.verified_insns == program.verifier.total_insns
    with pytest.raises(NotMeasuredError, match="no verifier log"):
        _ = other.verifier


def test_background_statistics_give_way_to_a_measurement() -> None:
    before = len(run_time_stats._users)
    background = run_time_stats.BackgroundStatistics()
    background.start()
    background.start()
    users = [len(run_time_stats._users)]
    with run_time_stats.paused():
        users.append(len(run_time_stats._users))
    users.append(len(run_time_stats._users))
    background.stop()
    users.append(len(run_time_stats._users))
    assert [each - before for each in users] == [1, 0, 1, 0]

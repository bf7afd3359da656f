"""BPF_PROG_RUN: programs run without being attached."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import LoadError, RunError, ValueTypeError
from pytest_bpf.kernel.perf_event import online_cpus
from pytest_bpf.places import pair

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
            assert sender.globals["hits"] == 1000
            assert receiver.globals["hits"] == 1000


def test_refusals_say_why(obj: Object) -> None:
    for name, arguments, options, words in (
        ("probe", (), {}, "'probe' .kprobe. cannot be test-run .* no test run for kprobe programs"),
        ("operations", (), {}, "no test run for sock_ops programs, attach it instead"),
        ("cut", (b"x" * 5,), {}, "with 5 bytes of data: EINVAL.*at least an Ethernet header, 14"),
        ("cut", (), {}, "with 0 bytes of data.*14 bytes"),
        (
            "cut",
            (FRAME, {"data": 8, "data_end": 70}),
            {},
            "the data, the context or a flag does not",
        ),
        ("add", (b"", (1, 2)), {"cpu": 4096}, "CPU 4096 is not online"),
        ("add", (b"", (1,) * 13), {}, "cannot be test-run"),
        ("cut", (FRAME,), {"live": True, "batch_size": 10**6}, "cannot be test-run"),
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

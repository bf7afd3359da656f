"""Strategies of hypothesis: whole and damaged packets, values by BTF, and states put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_bpf import Packet, ValueTypeError
from pytest_bpf.fuzz.strategies import contexts, map_contents, packets, put_back, values

if TYPE_CHECKING:
    from pytest_bpf import Object
    from tests.conftest import Load

TEXT = """
struct flow { __be32 address; __u16 port; __u8 flags; };
struct sums { __u64 packets; __s32 last; bool seen; char name[8]; enum xdp_action action; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64);
    __type(key, struct flow); __type(value, struct sums); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 8);
    __type(key, __u32); __type(value, __u64); } counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 8);
    __type(value, __u64); } waiting SEC(".maps");
__u64 total;
SEC("xdp") int count(struct xdp_md *ctx) {
    __u32 key = 3; __u64 *n = bpf_map_lookup_elem(&counts, &key);
    total += ctx->data_end - ctx->data;
    if (n) *n += 1;
    return XDP_PASS;
}
SEC("tc") int mark(struct __sk_buff *skb) { return skb->mark & 1; }
SEC("raw_tp") int add(struct bpf_raw_tracepoint_args *ctx) { return ctx->args[0] + ctx->args[11]; }
"""
quick = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(TEXT)


@given(packets(damaged=False))
@quick
def test_whole_packets_have_no_faults(frame: bytes) -> None:
    packet = Packet(frame)
    if "ip" in packet and packet.ip.fragment_offset:
        return  # what follows is no header
    assert not [f for f in packet.faults if not f.startswith(("udp.", "tcp.", "icmp."))]


@given(packets())
@quick
def test_a_program_gets_packets_and_its_state_is_put_back(obj: Object, frame: bytes) -> None:
    with put_back(obj):
        run = obj.programs["count"].test_run(frame)
        assert run.data_out == frame
        assert obj.globals["total"] == len(frame)
        assert obj.maps["counts"][3] == 1
    assert obj.globals["total"] == 0
    assert obj.maps["counts"][3] == 0


def test_contents_of_maps_are_read_as_they_were_written(obj: Object) -> None:
    @given(map_contents(obj.maps["flows"]), map_contents(obj.maps["counts"]))
    @quick
    def check(flows: dict[Any, Any], counts: dict[int, int]) -> None:
        with put_back(obj):
            obj.maps["flows"].update(flows)
            obj.maps["counts"].update(counts)
            assert dict(obj.maps["flows"]) == flows
            assert {key: obj.maps["counts"][key] for key in counts} == counts
        assert not dict(obj.maps["flows"])

    check()


def test_contexts_are_those_that_the_kernel_takes(obj: Object) -> None:
    @given(contexts(obj.programs["mark"]), contexts(obj.programs["add"]))
    @quick
    def check(skb: dict[str, Any], arguments: tuple[int, ...]) -> None:
        run = obj.programs["mark"].test_run(bytes(64), skb or None)
        assert run.retval == (skb.get("mark", 0) & 1)
        total = (arguments[0] + arguments[11]) % 2**32
        assert obj.programs["add"].test_run(context=arguments).retval % 2**32 == total

    check()


def test_a_failure_shrinks_to_a_small_packet() -> None:
    seen: list[bytes] = []

    @given(packets())
    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def check(frame: bytes) -> None:
        if Packet(frame).eth.type == 0x86DD:
            seen.append(frame)
            raise AssertionError

    with pytest.raises(AssertionError):
        check()
    assert len(seen[-1]) <= 62


def test_kinds_without_contents_or_contexts_are_said(obj: Object) -> None:
    with pytest.raises(ValueTypeError, match="map 'waiting' is a queue: contents are drawn for"):
        map_contents(obj.maps["waiting"])


@given(st.data())
@quick
def test_values_of_a_type_can_be_written_and_read(obj: Object, data: st.DataObject) -> None:
    source = obj.maps["flows"]
    key, value = data.draw(values(source.layout.key)), data.draw(values(source.layout.value))
    with put_back(obj):
        source[key] = value
        assert source[key] == value


SENDER = """
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4);
    __uint(value_size, 4); } perf SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
SEC("raw_tp") int send(struct bpf_raw_tracepoint_args *ctx) {
    __u64 value = ctx->args[0];
    bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &value, sizeof(value));
    bpf_ringbuf_output(&ring, &value, sizeof(value), 0);
    return 0;
}
"""


@pytest.mark.parametrize("buffer", ["perf", "ring"])
def test_events_stay_with_who_reads_them(load: Load, buffer: str) -> None:
    obj = load(SENDER)
    with obj.maps[buffer].events() as events:
        for value in (5, 6):
            with put_back(obj):
                obj.programs["send"].test_run(context=[value])
        assert list(events.read(2)) == [5, 6]

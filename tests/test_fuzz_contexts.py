"""Members of a packet's context as inputs: given, guided, shrunk, shown, compared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import (
    DifferenceError,
    InvariantError,
    check_equivalence,
    check_invariants,
    find_worst,
)
from pytest_bpf.kernel.programs.assembly import leave, move
from pytest_bpf.kernel.programs.context_use import context_use
from pytest_bpf.kernel.programs.flow import Insn, flow, pack

if TYPE_CHECKING:
    from pytest_bpf import Trial
    from tests.conftest import Load

TC = """
static __attribute__((noinline)) int ask(struct __sk_buff *skb, int then) {{
    return {0} ? then : 0;
}}
SEC("tc") int look(struct __sk_buff *skb) {{ return ask(skb, {1}); }}
"""
XDP = """
SEC("xdp") int look(struct xdp_md *ctx) {{
    return {0} ? {1} : XDP_PASS;
}}
"""


@pytest.mark.parametrize(
    ("text", "condition", "shows"),
    [
        (TC, "skb->mark == 0xcafe1234", ["ctx->mark: 3405648436"]),
        (
            TC,
            "skb->priority == 77 && skb->cb[2] == 4242",
            ["ctx->priority: 77", "ctx->cb[2]: 4242"],
        ),
        (TC, "skb->tstamp - (1ULL << 40) < 10", ["ctx->tstamp: 1099511627776"]),
        (TC, "skb->hwtstamp == 1ULL << 40", ["ctx->hwtstamp: 1099511627776"]),
        (
            TC,
            "skb->wire_len > skb->len + 100 && skb->gso_segs == 3 && skb->gso_size == 99",
            ["ctx->wire_len: 115", "ctx->gso_segs: 3", "ctx->gso_size: 99"],
        ),
        (TC, "skb->ingress_ifindex == 4711", ["ctx->ingress_ifindex: 4711"]),
        (
            XDP,
            (
                "({ __u32 *meta = (void *)(long)ctx->data_meta; "
                "(void *)(meta + 2) <= (void *)(long)ctx->data && meta[1] == 0xbeef; })"
            ),
            ["ctx->data_meta: 00000000efbe0000"],
        ),
        (
            XDP,
            "ctx->ingress_ifindex == 1 && ctx->rx_queue_index == 0",
            ["ctx->ingress_ifindex: 1", "ctx->rx_queue_index: 0"],
        ),
    ],
)
def test_a_member_that_two_programs_ask_for_is_found(
    load: Load, text: str, condition: str, shows: list[str]
) -> None:
    with pytest.raises(DifferenceError) as caught:
        check_equivalence(load(text.format(condition, 1)), load(text.format(condition, 3)))
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[2 : 2 + len(shows)] == shows
    found = re.search(r"found after (\d+)", lines[-1])
    assert found is not None
    assert int(found[1]) < 1000
    assert check_equivalence(
        load(text.format(condition, 1)), load(text.format(condition, 1)), count=600
    )


def test_what_programs_leave_in_the_context_is_compared(load: Load) -> None:
    text = 'SEC("tc") int put(struct __sk_buff *skb) {{ {}; return 0; }}'
    for member, shows in {
        "mark": "ctx->mark: before 1, after 2",
        "cb[3]": r"ctx->cb\[3\]: before 1, after 2",
        "priority": "ctx->priority: before 1, after 2",
    }.items():
        objects = [load(text.format(f"skb->{member} = {number}")) for number in (1, 2)]
        with pytest.raises(DifferenceError, match=shows):
            check_equivalence(*objects, count=10)
    stamps = [load(text.format(f"bpf_skb_set_tstamp(skb, {n}, 1)")) for n in (8, 9)]
    with pytest.raises(DifferenceError, match="ctx->tstamp: before 8, after 9"):
        check_equivalence(*stamps, count=10)


def test_metadata_afterwards_is_compared_and_is_no_part_of_the_packet(load: Load) -> None:
    text = """
SEC("xdp") int put(struct xdp_md *ctx) {{
    if (bpf_xdp_adjust_meta(ctx, -4)) return XDP_ABORTED;
    void *data = (void *)(long)ctx->data;
    __u32 *meta = (void *)(long)ctx->data_meta;
    if ((void *)(meta + 1) > data) return XDP_DROP;
    *meta = {};
    return XDP_PASS;
}}
"""
    with pytest.raises(DifferenceError, match=r"from byte 0 on: before 07000000.*08000000"):
        check_equivalence(load(text.format(7)), load(text.format(8)), count=10)

    def stays(trial: Trial) -> None:
        assert trial.data_out == trial.data

    result = check_invariants(load(text.format(7)), stays, count=1000)
    assert result.reach.blocks >= result.reach.all_blocks - 1


def test_numbers_that_the_kernel_would_refuse_are_not_given(load: Load) -> None:
    condition = "skb->ifindex + skb->wire_len + skb->gso_segs + skb->gso_size == 7"
    small = TC.format(condition, 1).replace(
        "{ return ask", "{ if (skb->len > 900) return 5; return ask"
    )
    result = check_equivalence(load(small), load(small), count=3000)
    assert result.refused < 100
    assert re.match(r"ctx->ifindex is one of the interfaces here: 1", result.notes[-1])


def test_members_that_no_test_run_sets_are_said(load: Load) -> None:
    text = TC.format("skb->hash == 7 || skb->vlan_tci == 3", 1)
    (note,) = check_equivalence(load(text), load(text), count=300).notes
    assert note == ("the same for every input, as no test run can set it: ctx->vlan_tci, ctx->hash")


def test_an_invariant_sees_the_context(load: Load) -> None:
    def is_kept(trial: Trial) -> None:
        assert trial.context_out["mark"] == trial.context["mark"]

    text = """
SEC("tc") int keep(struct __sk_buff *skb) {{
    if (skb->mark == {}) skb->mark = 1;
    return 0;
}}
"""
    with pytest.raises(InvariantError) as caught:
        check_invariants(load(text.format(40_007)), is_kept)
    assert "ctx->mark: 40007\n" in str(caught.value)
    assert check_invariants(load(text.format(1)), is_kept, count=1000)


def test_the_dearest_input_has_a_context(load: Load) -> None:
    text = """
SEC("tc") int loop(struct __sk_buff *skb) {
    __u32 sum = 0;
    if (skb->mark != 0x5eed) return 0;
    for (int i = 0; i < 100; i++) sum += bpf_get_smp_processor_id();
    return sum & 1;
}
"""
    worst = find_worst(load(text), count=500)
    assert worst.insns > 200
    assert worst.text.startswith("ctx->mark: 24301\n")


SPILL = pack(
    [
        Insn(0x7B, 10, 1, -8, 0),  # *(u64 *)(r10 - 8) = r1
        Insn(0x85, 0, 0, 0, 7),  # call bpf_get_prandom_u32
        Insn(0x79, 6, 10, -8, 0),  # r6 = *(u64 *)(r10 - 8)
        Insn(0x61, 0, 6, 8, 0),  # r0 = *(u32 *)(r6 + 8)
        Insn(0x7B, 10, 0, -8, 0),  # *(u64 *)(r10 - 8) = r0
        Insn(0x79, 6, 10, -8, 0),
        Insn(0x63, 6, 0, 32, 0),  # no context any more: *(u32 *)(r6 + 32) = r0
    ]
)


@pytest.mark.unit
def test_the_context_is_followed_through_registers_and_the_stack() -> None:
    use = context_use(flow(SPILL + leave()))
    assert use.reads == {(8, 4)}
    assert not use.writes


@pytest.mark.unit
def test_a_program_without_its_context_reads_none_of_it() -> None:
    use = context_use(flow(move(0, 0) + leave()))
    assert not use.reads | use.writes

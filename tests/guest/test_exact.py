"""Exact mode counts instructions, to the last one; natively there is nothing to be found here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_bpf import check_equivalence, find_worst
from pytest_bpf.costs.run import measure
from pytest_bpf.coverage.line_costs import line_costs
from pytest_bpf.kernel.sys.exact import is_exact
from pytest_bpf.loader import Loader
from tests.guest.figures import figures

if TYPE_CHECKING:
    from pytest_bpf import RunCost

pytestmark = pytest.mark.skipif(not is_exact(), reason="this kernel's time counts no instructions")


@pytest.fixture(scope="module")
def costs() -> dict[str, RunCost]:
    return figures(batches=15)


def test_figures_are_whole_numbers_of_instructions(costs: dict[str, RunCost]) -> None:
    for cost in costs.values():
        assert cost.unit == "instructions"
        assert cost.per_run == int(cost.per_run), cost


def test_most_batches_read_the_same(costs: dict[str, RunCost]) -> None:
    for cost in costs.values():
        assert cost.lower == cost.per_run == cost.upper, cost


def test_one_instruction_more_reads_one_more(costs: dict[str, RunCost]) -> None:
    base = costs["plus_0"].per_run
    assert [costs[f"plus_{n}"].per_run - base for n in (1, 5, 50)] == [1, 5, 50]


def test_again_reads_the_same(costs: dict[str, RunCost]) -> None:
    again = figures(batches=15)
    assert {name: cost.per_run for name, cost in again.items()} == {
        name: cost.per_run for name, cost in costs.items()
    }


def test_what_measuring_reads_is_given_beside(costs: dict[str, RunCost]) -> None:
    """Programs called by a trampoline are compared with one that is called by a trampoline."""
    for name in ("empty", "empty_tracepoint", "empty_fentry", "empty_fexit"):
        assert costs[name].per_run == costs[name].empty, name


PACKETS = """\
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("xdp")
int sum(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)data;
	int i, total = 0;

	if (data + 34 > end)
		return XDP_ABORTED;
	if (eth->h_proto != 8)
		return XDP_PASS;
	for (i = 14; i < 34; i++)
		total += data[i] & 1 ? data[i] : 3;
	return total > 500 ? XDP_DROP : XDP_TX;
}
"""

ENTRY = 42
"""Instructions of BPF_PROG_RUN around an XDP program."""


@pytest.mark.parametrize(
    "packet",
    [bytes(20), bytes(64), bytes(12) + b"\x08\x00" + bytes(range(50))],
    ids=["short", "other", "IPv4"],
)
def test_what_its_lines_cost_is_what_a_run_costs(packet: bytes) -> None:
    with Loader() as loader:
        program = loader.load(PACKETS, name="sum").programs["sum"]
        costs = line_costs(loader.objects[0], lambda: program.test_run(packet))
        run = measure(program, lambda: program.test_run(packet, repeat=100), batches=10)
    assert run.per_run == costs.instructions + ENTRY


BYTES = """\
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("tc")
int count(struct __sk_buff *skb)
{
	volatile __u32 sum = 0;
	int i;

	for (i = 0; i < ROUNDS; i++)
		sum += i;
	if (skb->mark == 0x5eed)
		bpf_skb_load_bytes(skb, 0, (void *)&sum, sizeof(sum));
	return TC_ACT_OK;
}
"""


def test_the_table_of_two_programs_has_what_runs_take() -> None:
    with Loader() as loader:
        objects = [loader.load(BYTES, defines={"ROUNDS": n}, name="count") for n in (3, 5)]
        result = check_equivalence(*objects, count=600)
        plain = [
            measure(obj.programs["count"], lambda: obj.programs["count"].test_run(bytes(64)))  # noqa: B023
            for obj in objects
        ]
    before, after = result.before.instructions, result.after.instructions
    assert after - before == pytest.approx(plain[1].per_run - plain[0].per_run)
    assert plain[1].per_run > plain[0].per_run
    assert "not measured" not in str(result)


def test_the_dearest_input_is_the_one_that_takes_most_instructions() -> None:
    with Loader() as loader:
        obj = loader.load(BYTES, defines={"ROUNDS": 3}, name="count")
        worst = find_worst(obj, count=600)
        program = obj.programs["count"]
        usual = measure(program, lambda: program.test_run(bytes(64)))
    assert worst.text.startswith("ctx->mark: 24301\npacket, 14 bytes")
    assert worst.instructions > usual.per_run - (usual.empty or 0) + 20

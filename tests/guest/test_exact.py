"""Exact mode counts instructions, to the last one; natively there is nothing to be found here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_bpf.kernel.exact import is_exact
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

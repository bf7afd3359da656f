"""Measuring a run natively; `tests.guest.test_exact` does so in exact mode."""

from __future__ import annotations

import os
from functools import partial
from resource import RUSAGE_THREAD, getrusage
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import BpfError, UnavailableError, measure
from pytest_bpf.costs.instruments import instrument
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys import exact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Load

PROGRAM = """
SEC("xdp") int looping(struct xdp_md *ctx)
{
    for (int i = 0; i < 2000; i++)
        asm volatile("r1 += 1" ::: "r1");
    return 2;
}
SEC("xdp") int returning(struct xdp_md *ctx) { return 2; }
"""

NO_COUNT = pytest.mark.skipif(exact.is_exact(), reason="here time is a count of instructions")


@pytest.fixture
def _forgetting() -> Iterator[None]:
    instrument.instrument.cache_clear()
    yield
    instrument.instrument.cache_clear()


@NO_COUNT
def test_a_run_natively_is_in_nanoseconds(load: Load) -> None:
    programs = load(PROGRAM).programs
    costs = {
        name: measure(program, partial(program.test_run, bytes(64), repeat=100), batches=5)
        for name, program in programs.items()
    }
    looping, returning = costs["looping"], costs["returning"]
    assert looping.unit == "ns"
    assert (looping.program, looping.batches, looping.runs) == ("looping", 5, 500)
    assert 0 < looping.lower <= looping.per_run <= looping.upper
    assert looping.per_run > returning.per_run
    assert returning.empty is not None
    assert returning.empty > 0
    assert str(looping).endswith(" ns per run, 500 runs")


def test_one_batch_is_its_own_median(load: Load) -> None:
    program = load(PROGRAM).programs["returning"]
    cost = measure(program, partial(program.test_run, bytes(64)), batches=1)
    assert cost.runs == 1
    assert cost.lower == cost.per_run == cost.upper


def test_batches_of_an_xdp_program_do_not_wait_for_each_other(load: Load) -> None:
    program = load(PROGRAM).programs["returning"]
    slept = []

    def drive() -> None:
        before = getrusage(RUSAGE_THREAD).ru_nvcsw
        program.test_run(bytes(64), repeat=100)
        slept.append(getrusage(RUSAGE_THREAD).ru_nvcsw - before)

    drive()
    assert slept.pop() >= 1, "the kernel no longer waits by itself"
    measure(program, drive)
    assert sum(slept) < len(slept) / 2
    drive()
    assert slept[-1] >= 1, "it is still attached"


def test_a_measured_program_runs_as_often_as_it_is_made_to(load: Load) -> None:
    program = load(PROGRAM).programs["returning"]
    with statistics():
        before = program.info.run_cnt
        cost = measure(program, partial(program.test_run, bytes(64), repeat=100))
        assert program.info.run_cnt - before == cost.runs + 100


def test_a_program_that_does_not_run(load: Load) -> None:
    program = load(PROGRAM).programs["returning"]
    with pytest.raises(BpfError, match=r"'returning' did not run in batch 1 of 30: is it attached"):
        measure(program, lambda: None)


def test_no_batch_at_all(load: Load) -> None:
    program = load(PROGRAM).programs["returning"]
    with pytest.raises(BpfError, match="one batch at least: batches=0"):
        measure(program, lambda: None, batches=0)


@NO_COUNT
@pytest.mark.usefixtures("_forgetting")
def test_this_machine_cannot_pass_for_an_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrument, "is_exact", lambda: True)
    with pytest.raises(UnavailableError, match=r"exact mode (needs one CPU|does not count here)"):
        instrument.instrument()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(UnavailableError, match="does not count here: 50 instructions more read"):
        instrument.instrument()

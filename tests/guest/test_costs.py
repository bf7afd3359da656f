"""Costs where time counts instructions, on a kernel that does not tell the memory of maps."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import Loader, Syscalls, costs_of, map_speed, overhead
from pytest_bpf.costs.figures.map_memory import map_memory
from pytest_bpf.kernel.sys.exact import is_exact
from pytest_bpf.kernel.sys.release import kernel_version
from tests.guest.figures import FRAME, SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf import Figure, Object

pytestmark = pytest.mark.skipif(not is_exact(), reason="this kernel's time counts no instructions")

EMPTY = ("empty", "empty_tracepoint", "empty_raw_tracepoint")
ADDING = ("plus_0", "plus_1", "plus_50")


@pytest.fixture(scope="module")
def obj() -> Iterator[Object]:
    programs = [*EMPTY, *ADDING, "hash_update", "per_cpu", "ring_write", "empty_fentry"]
    programs += ["per_cpu_fentry", "per_cpu_fexit"]
    with Loader() as bpf:
        yield bpf.load(SOURCE, programs=programs)


def instructions(obj: Object, name: str) -> Figure:
    drive = partial(obj.programs[name].test_run, FRAME, repeat=50)
    return costs_of(obj, drive, rounds=9).programs[name].per_run


def test_one_instruction_more_costs_one_more(obj: Object) -> None:
    figures = [instructions(obj, name) for name in ADDING]
    for figure in figures:
        assert (figure.metric, figure.instrument) == ("instructions", "exact")
        assert figure.lower == figure.value == figure.upper
    base = figures[0].value
    assert base is not None
    assert [figure.value and figure.value - base for figure in figures] == [0, 1, 50]


def test_an_empty_program_costs_nothing_however_it_is_called(obj: Object) -> None:
    with (
        obj.programs["empty"].attach(),
        obj.programs["empty_tracepoint"].attach(),
        obj.programs["empty_raw_tracepoint"].attach(),
    ):
        costs = costs_of(obj, partial(Syscalls().getpid, 50), rounds=9)
    for name in EMPTY:
        assert costs.programs[name].per_run.value == 0, name
        assert costs.programs[name].run_cnt >= 450
    with obj.programs["empty_fentry"].attach():
        statvfs = costs_of(obj, lambda: [os.statvfs("/") for _ in range(50)], rounds=9)
    assert statvfs.programs["empty_fentry"].per_run.value == 0


def test_look_ups_are_the_same_every_time(obj: Object) -> None:
    first, again = (map_speed(obj.maps["table"], batches=9) for _ in range(2))
    assert first.lookup.metric == "lookup_instructions"
    assert first.lookup.value == again.lookup.value
    array = map_speed(obj.maps["counts"], batches=9)
    assert array.lookup.value is not None
    assert first.lookup.value is not None
    assert array.lookup.value < 0.3 * first.lookup.value


@pytest.mark.skipif(kernel_version() >= (6, 2, 0), reason="this kernel tells the memory of maps")
def test_memory_that_this_kernel_does_not_tell(obj: Object) -> None:
    ring, table = map_memory(obj.maps["events"]), map_memory(obj.maps["table"])
    assert ring.by == table.by == "formula"
    assert ring.total > 1 << 22 > obj.maps["events"].memlock
    assert table.total == pytest.approx(1024 * (64 + 16), rel=0.05)
    assert obj.maps["table"].memlock < table.total / 3


def look_at_the_root() -> None:
    for _ in range(50):
        os.statvfs("/")


@pytest.mark.parametrize(
    ("name", "workload"),
    [
        ("hash_update", partial(Syscalls().getpid, 50)),
        ("per_cpu", partial(Syscalls().getpid, 50)),
        ("per_cpu_fentry", look_at_the_root),
        ("per_cpu_fexit", look_at_the_root),
    ],
)
def test_overhead_by_each_kind_of_hook(
    obj: Object, name: str, workload: Callable[[], object]
) -> None:
    found = overhead(obj.programs[name], workload, seconds=1.0)
    assert found.slow_down.value > found.program.value > 0
    assert found.hook.value > 0
    assert {figure.instrument for figure in found.figures()} == {"exact"}

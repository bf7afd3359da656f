"""The fixed program beside every batch: what it reads, and waiting until nothing disturbs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.costs.figures.intervals import NEAR, figure_of
from pytest_bpf.costs.instruments import reference
from pytest_bpf.costs.instruments.instrument import FixedProgram
from pytest_bpf.costs.instruments.reference import Reference
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys.exact import is_exact

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(is_exact(), reason="nothing disturbs where time is a count")


@pytest.fixture
def beside() -> Iterator[Reference]:
    with statistics(), Reference() as beside:
        beside.per_run()
        yield beside


def test_it_does_more_than_an_empty_program(beside: Reference) -> None:
    with FixedProgram() as empty:
        readings = [(empty.per_run(), beside.per_run()) for _ in range(30)]
    assert min(full for _, full in readings) > 2 * min(bare for bare, _ in readings)


def test_it_remembers_the_least(beside: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference._MACHINE, "least", math.inf)
    readings = [beside.per_run() for _ in range(20)]
    assert min(readings) == reference._MACHINE.least


def test_it_does_not_wait_for_ever(beside: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that was faster once, the patience of a process comes to its end."""
    monkeypatch.setattr(reference, "PATIENCE", 0.03)
    monkeypatch.setattr(reference._MACHINE, "least", 1.0)
    monkeypatch.setattr(reference._MACHINE, "patience", 0.04)
    begun = time.monotonic()
    beside.wait_until_quiet()
    assert time.monotonic() - begun >= 0.03
    assert reference._MACHINE.patience <= 0.01
    beside.wait_until_quiet()
    assert reference._MACHINE.patience <= 0


def test_it_goes_on_at_once_when_nothing_disturbs(
    beside: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference._MACHINE, "least", 1e9)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    beside.wait_until_quiet()


def test_a_figure_is_of_the_undisturbed_batches() -> None:
    samples = [100.0 + number / 10 for number in range(10)] + [150.0] * 10
    quiet = [270.0] * 10 + [270.0 * NEAR + 1] * 10
    assert figure_of("run_time", "prog a", samples, "clock", quiet).value == pytest.approx(100.09)
    without = figure_of("run_time", "prog a", samples, "clock")
    assert without.value == pytest.approx((100.9 + 150) / 2)
    few = figure_of("run_time", "prog a", samples, "clock", [270.0] * 3 + [400.0] * 17)
    assert few.samples == tuple(samples)
    assert few.value is not None
    assert few.value > 100.1, "three say nothing: it is of all of them"


def test_one_batch_has_no_interval() -> None:
    found = figure_of("run_time", "prog a", [5.0], "clock", [270.0])
    assert (found.value, found.lower, found.upper) == (5.0, None, None)

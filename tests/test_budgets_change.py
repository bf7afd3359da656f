"""Comparing samples: no false alarm, the change found, and "inconclusive" when it is not sure."""

from __future__ import annotations

import numpy as np

from pytest_bpf.budgets.change import (
    ATTEMPTS,
    DRIFT,
    Change,
    Outcome,
    Samples,
    change,
    combine,
)
from pytest_bpf.costs.figures.intervals import FEWEST


def noisy(
    rng: np.random.Generator, mean: float, count: int = 30, is_too_disturbed: float = 0.4
) -> Samples:
    """Make what a busy machine reads: phases in which all is slower, and the fixed program too.

    In the others some batches are interrupted, and each run has its luck with memory (`DRIFT`).
    """
    phases = np.repeat(rng.random(-(-count // 5)) < is_too_disturbed, 5)[:count]
    slower = np.where(phases, rng.uniform(1.1, 1.5, count), 1.0)
    interrupted = np.where(rng.random(count) < 0.2, rng.uniform(1, 3, count), 1.0)
    luck = 1 + rng.normal(0, DRIFT)
    values = mean * luck * slower * interrupted * rng.normal(1, 0.005, count)
    reference = 270.0 * slower * rng.normal(1, 0.005, count)
    return Samples(values.tolist(), reference.tolist())


def verdicts(times: float, room: float = 0.05, rounds: int = 100) -> dict[str, int]:
    rng = np.random.default_rng(7)
    found: dict[str, int] = {}
    for _ in range(rounds):
        before, after = noisy(rng, 100.0), noisy(rng, 100.0 * times)
        verdict = change(before, after, room * 100).verdict
        found[verdict] = found.get(verdict, 0) + 1
    return found


def test_no_change_is_never_slower_nor_faster() -> None:
    assert set(verdicts(1.0)) <= {"same", "inconclusive"}


def test_a_clear_change_is_found_unless_too_little_was_undisturbed() -> None:
    for times, verdict in ((1.15, "slower"), (0.85, "faster")):
        found = verdicts(times)
        assert set(found) <= {verdict, "inconclusive"}
        assert found[verdict] > 85


def test_a_change_on_the_border_is_mostly_undecided() -> None:
    found = verdicts(1.05)
    assert found["inconclusive"] > 85
    assert found.get("slower", 0) <= 8


def test_disturbed_batches_are_no_change() -> None:
    """Without the fixed program's reading, it would be a failure."""
    rng = np.random.default_rng(3)
    before, after = noisy(rng, 100.0, is_too_disturbed=0.0), noisy(rng, 100.0, is_too_disturbed=0.6)
    assert change(before, after, 5.0).verdict == "same"
    blind = change(Samples(before.values), Samples(after.values), 5.0)
    assert blind.verdict in {"slower", "inconclusive"}


def test_a_machine_that_is_slower_all_the_time_decides_nothing() -> None:
    before, after = Samples([100.0] * 10, [50.0] * 10), Samples([240.0] * 10, [100.0] * 10)
    found = change(before, after, 5.0)
    assert found.verdict == "inconclusive"
    assert found.why == "the machine was 100% slower now: 0 of 10 batches count"
    assert change(after, before, 5.0).why.startswith("the machine was 100% slower before: ")


def test_too_few_undisturbed_batches_decide_nothing() -> None:
    before = Samples([100.0] * 10, [50.0] * 10)
    after = Samples([100.0] * 7 + [130.0] * 20, [50.0] * 7 + [60.0] * 20)
    assert change(before, after, 5.0).why == "the machine was disturbed now: 7 of 27 batches count"


def test_the_change_is_in_the_unit_of_the_samples() -> None:
    before, after = Samples([100.0] * 10, [50.0] * 10), Samples([120.0] * 10, [50.0] * 10)
    assert change(before, after, 5.0, drift=0) == Change("slower", 20.0, 20.0, 20.0)


def test_one_instruction_more_is_found_where_nothing_is_left_to_chance() -> None:
    before, after = Samples([50.0] * 15), Samples([51.0] * 15)
    assert change(before, after, 0.0, drift=0).verdict == "slower"
    assert change(before, before, 0.0, drift=0).verdict == "same"
    assert change(after, before, 0.0, drift=0).verdict == "faster"
    assert change(before, after, 1.0, drift=0).verdict == "same"


def test_interrupted_batches_do_not_hide_it() -> None:
    before = Samples([50.0] * 12 + [53.3, 61.0, 50.2])
    after = Samples([53.0, 70.0] + [51.0] * 13)
    assert change(before, after, 0.0, drift=0).verdict == "slower"
    assert change(before, before, 0.0, drift=0).verdict == "same"


def test_too_few_batches_decide_nothing() -> None:
    before, after = Samples([100.0] * (FEWEST - 1)), Samples([200.0] * 30)
    assert change(before, after, 5.0).verdict == "inconclusive"
    assert change(Samples([50.0]), Samples([51.0]), 0.0, drift=0).verdict == "slower"


def test_the_same_samples_give_the_same_answer() -> None:
    rng = np.random.default_rng(1)
    before, after = noisy(rng, 100.0), noisy(rng, 103.0)
    assert change(before, after, 5.0) == change(before, after, 5.0)


def test_a_program_that_costs_nothing() -> None:
    """Its figures lie around 0: the change is told in ns, not in percent of nothing."""
    rng = np.random.default_rng(2)
    before, after = (Samples(rng.normal(0, 0.4, 30).tolist(), [46.0] * 30) for _ in range(2))
    assert change(before, after, room=0.5).verdict in {"same", "inconclusive"}


def test_slower_is_confirmed_by_another_load() -> None:
    assert combine(["slower"]) is None
    assert combine(["slower", "slower"]) == "slower"
    assert combine(["slower", "inconclusive"]) is None
    assert combine(["slower", "inconclusive", "slower"]) == "slower"
    assert combine(["slower", "same"]) == combine(["same"]) == "same"
    assert combine(["inconclusive", "faster"]) == "faster"
    undecided: list[Outcome] = ["inconclusive"] * (ATTEMPTS - 1)
    assert combine(undecided) is None
    assert combine([*undecided, "slower"]) == "inconclusive"

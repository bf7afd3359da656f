"""Comparing samples: no false alarm, the change found, and "inconclusive" when it is not sure."""

from __future__ import annotations

import numpy as np

from pytest_bpf.budgets.statistics import DRIFT, FEWEST, Change, Samples, change


def noisy(rng: np.random.Generator, mean: float, count: int = 30, speed: float = 1.0) -> Samples:
    """Make what a busy machine reads: phases of slowness, in which the fixed program is slow too.

    Some batches are interrupted, and each run has its own luck with memory (`DRIFT`).
    """
    phases = np.repeat(rng.choice([1.0, 1.0, 1.15], -(-count // 5)), 5)[:count] * speed
    interrupted = np.where(rng.random(count) < 0.1, rng.uniform(1, 3, count), 1.0)
    luck = 1 + rng.normal(0, DRIFT)
    values = mean * luck * phases * interrupted * rng.normal(1, 0.02, count)
    reference = 46.0 * phases * rng.normal(1, 0.01, count)
    return Samples(values.tolist(), reference.tolist())


def verdicts(times: float, room: float = 0.05, rounds: int = 100) -> dict[str, int]:
    rng = np.random.default_rng(7)
    found: dict[str, int] = {}
    for _ in range(rounds):
        speed = rng.uniform(0.8, 1.3)
        before, after = noisy(rng, 100.0), noisy(rng, 100.0 * times, speed=speed)
        verdict = change(before, after, room * 100).verdict
        found[verdict] = found.get(verdict, 0) + 1
    return found


def test_no_change_is_never_slower_nor_faster() -> None:
    assert set(verdicts(1.0)) <= {"same", "inconclusive"}


def test_a_clear_change_is_found_each_time() -> None:
    assert verdicts(1.2) == {"slower": 100}
    assert verdicts(0.8) == {"faster": 100}


def test_a_change_on_the_border_is_mostly_undecided() -> None:
    found = verdicts(1.05)
    assert found["inconclusive"] > 80
    assert found.get("slower", 0) <= 8


def test_another_machine_speed_is_not_a_change() -> None:
    """Without the fixed program's reading, half as fast again is a failure."""
    rng = np.random.default_rng(3)
    before, after = noisy(rng, 100.0), noisy(rng, 100.0, speed=1.5)
    assert change(before, after, 5.0).verdict in {"same", "inconclusive"}
    blind = change(Samples(before.values), Samples(after.values), 5.0)
    assert blind.verdict == "slower"


def test_the_change_is_in_the_unit_and_at_the_speed_of_before() -> None:
    before = Samples([100.0] * 10, [50.0] * 10)
    after = Samples([240.0] * 10, [100.0] * 10)
    found = change(before, after, 5.0, drift=0)
    assert found == Change("slower", 20.0, 20.0, 20.0)


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

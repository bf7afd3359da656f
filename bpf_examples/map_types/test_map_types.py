"""Five types of map: the same answers, other edges, and costs far enough apart to assert.

Each run does a thousand look-ups or updates, so the kernel's own clock around one ``test_run`` is
fine enough. Costs are compared as ratios of medians, of runs that took turns: what disturbs the
machine disturbs both.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import MapError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf import Loader, Object
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.costs.run import Measure

pytestmark = pytest.mark.bpf_requires(program_type="sched_cls")

KEYS = 1024
ROOM = 4 * KEYS
ARRAYS = ["array", "percpu_array"]
HASHES = ["hash", "percpu_hash", "lru_hash"]
FRAME = bytes(64)
LIMITS = {"lookup": 100, "update": 200}
"""ns of one, that the guide allows."""


@pytest.mark.parametrize("name", ARRAYS + HASHES)
def test_every_type_answers_alike(bpf: Loader, name: str) -> None:
    obj = load(bpf, name)
    content = obj.maps[name]
    lookup, update = obj.programs[f"{name}_lookup"], obj.programs[f"{name}_update"]

    lookup.test_run(FRAME)
    assert obj.globals["sum"] == 0  # nothing there yet

    update.test_run(FRAME, context={"mark": 7})
    assert [content.sum(key) for key in range(KEYS)] == [7 + key for key in range(KEYS)]

    content.update((key, 3 * key) for key in range(KEYS))  # on every CPU
    lookup.test_run(FRAME)
    assert obj.globals["sum"] == sum(3 * key for key in range(KEYS))


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_has_all_its_keys_always(bpf: Loader, name: str) -> None:
    array = load(bpf, name).maps[name]
    assert len(array) == ROOM
    with pytest.raises(MapError, match="past the end"):
        array[ROOM] = 1
    with pytest.raises(MapError, match="array"):
        del array[0]


@pytest.mark.parametrize("name", HASHES)
def test_a_hash_has_the_keys_it_was_given(bpf: Loader, name: str) -> None:
    content = load(bpf, name).maps[name]
    assert len(content) == 0
    content[5] = 1
    assert list(content) == [5]
    del content[5]
    assert 5 not in content


@pytest.mark.parametrize("name", ["hash", "percpu_hash"])
def test_a_full_hash_refuses_new_keys_only(bpf: Loader, name: str) -> None:
    content = load(bpf, name).maps[name]
    content.update(dict.fromkeys(range(ROOM), 1))
    with pytest.raises(MapError, match="full"):
        content[ROOM] = 1
    content[0] = 2  # an old key is always welcome
    assert len(content) == ROOM


def test_a_full_lru_hash_takes_new_keys(bpf: Loader) -> None:
    content = load(bpf, "lru_hash").maps["lru_hash"]
    content.update(dict.fromkeys(range(3 * ROOM), 1))
    assert 3 * ROOM - 1 in content
    assert len(content) <= ROOM


def test_array_lookup_costs_a_fraction_of_hash_lookup(bpf: Loader) -> None:
    cost = costs(bpf, "array_lookup", "percpu_array_lookup", "hash_lookup")
    assert cost["array_lookup"] <= 0.3 * cost["hash_lookup"]
    assert cost["percpu_array_lookup"] <= 0.3 * cost["hash_lookup"]


def test_lru_update_costs_more_than_hash_update(bpf: Loader) -> None:
    cost = costs(bpf, "lru_hash_update", "hash_update")
    assert cost["lru_hash_update"] >= 1.3 * cost["hash_update"]


@pytest.mark.bpf_claim("a look-up in an ARRAY is the fastest", row=6)
@pytest.mark.bpf_requires(exact=True)
def test_array_is_the_fastest(bpf: Loader, bpf_measure: Measure, bpf_claim: ClaimCheck) -> None:
    cost: dict[str, dict[str, float]] = {does: {} for does in LIMITS}
    for name in ARRAYS + HASHES:
        obj = load(bpf, name)
        obj.maps[name].update(dict.fromkeys(range(KEYS), 1))
        for does in LIMITS:
            program = obj.programs[f"{name}_{does}"]
            run = bpf_measure(program, partial(program.test_run, FRAME), batches=9)
            cost[does][name] = run.per_run / KEYS
    lookup, update = cost.values()
    assert lookup["percpu_array"] <= 0.3 * lookup["hash"]
    assert update["lru_hash"] >= 1.3 * update["hash"]
    least = min(HASHES, key=lookup.__getitem__)
    bpf_claim(
        lookup["array"] <= 0.3 * lookup[least],
        "; ".join(f"{does} {shown(each)}" for does, each in cost.items()),
        before=lookup[least],
        after=lookup["array"],
        unit="instructions",
    )


@pytest.mark.bpf_claim(
    "a look-up takes less than 100 ns, an update less than 200 ns", row=6, verdict=None
)
@pytest.mark.bpf_requires(exact=False)
def test_time_of_look_ups_and_updates(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    names = ARRAYS + HASHES
    cost = costs(bpf, *(f"{name}_{does}" for does in LIMITS for name in names))
    ns = {does: {name: cost[f"{name}_{does}"] / KEYS for name in names} for does in LIMITS}
    bpf_claim(
        {
            f"{does}, {name.upper()}": ns[does][name] < limit
            for does, limit in LIMITS.items()
            for name in names
        },
        "; ".join(f"{does} {shown(ns[does])} ns" for does in LIMITS),
    )


@pytest.mark.bpf_requires(program_type="raw_tracepoint", cpus=2)
def test_percpu_time_stamps_go_stale_when_a_thread_migrates(bpf: Loader) -> None:
    obj = bpf.load("migration.bpf.c")
    begin, end = obj.programs["begin"], obj.programs["end"]

    begin.test_run(context=[42, 1000], cpu=1)
    begin.test_run(context=[42, 5000], cpu=0)  # and then it moves to CPU 1
    end.test_run(context=[42, 5300], cpu=1)

    assert obj.globals["shared_elapsed"] == 300
    assert obj.globals["percpu_elapsed"] == 4300  # since what began there before


def load(bpf: Loader, name: str) -> Object:
    """Load one type of map, with its two programs."""
    return bpf.load("types.bpf.c", programs=[f"{name}_lookup", f"{name}_update"])


def shown(cost: Mapping[str, float]) -> str:
    """Return the costs by type for the eye."""
    return ", ".join(f"{name.upper()} {each:.3g}" for name, each in cost.items())


def costs(bpf: Loader, *programs: str) -> dict[str, float]:
    """Return the ns of a thousand operations on known keys: medians of runs that took turns."""
    obj = bpf.load("types.bpf.c", programs=programs)
    for content in obj.maps.values():
        content.update(dict.fromkeys(range(KEYS), 1))
    runs = [
        {name: obj.programs[name].test_run(FRAME).duration_ns for name in programs}
        for _ in range(101)
    ]
    return {name: median(run[name] for run in runs) for name in programs}

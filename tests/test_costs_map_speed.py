"""Look-ups and updates timed from BPF, on copies: orders that no machine turns round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_bpf import BpfError, UnknownNameError, costs_of, map_speed

if TYPE_CHECKING:
    from pytest_bpf import Map, Object
    from tests.conftest import Load

MAPS = """
#define MAP(name, kind, flags, of_key, of_value) \
    struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, 64); \
             __uint(map_flags, flags); __type(key, of_key); __type(value, of_value); } \
    name SEC(".maps");
struct big { char bytes[700]; };
MAP(array, ARRAY, 0, __u32, __u64)
MAP(percpu_array, PERCPU_ARRAY, 0, __u32, __u64)
MAP(hash, HASH, 0, __u32, __u64)
MAP(percpu_hash, PERCPU_HASH, 0, __u64, __u32)
MAP(lru_hash, LRU_HASH, 0, __u32, __u64)
MAP(lru_percpu_hash, LRU_PERCPU_HASH, 0, __u32, __u64)
MAP(lpm_trie, LPM_TRIE, BPF_F_NO_PREALLOC, __u64, __u64)
MAP(wide, HASH, 0, struct big, struct big)
MAP(mapped, ARRAY, BPF_F_MMAPABLE, __u32, __u64)
MAP(given, ARRAY, BPF_F_RDONLY_PROG, __u32, __u64)
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 4); __type(value, __u32); }
queue SEC(".maps");
SEC("xdp") int pass(struct xdp_md *ctx) { return 2; }
"""

TIMED = (
    *("array", "percpu_array", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash"),
    *("lpm_trie", "wide", "mapped"),
)


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(MAPS)


def value(of: Map, name: str) -> float:
    found = getattr(map_speed(of, batches=7), name).value
    assert found is not None
    return float(found)


@pytest.mark.parametrize("name", TIMED)
def test_every_kind_that_has_keys(obj: Object, name: str) -> None:
    speed = map_speed(obj.maps[name], batches=5)
    for figure in speed.figures():
        assert figure.subject == f"map {name}"
        assert figure.metric.startswith(("lookup", "update"))
        assert figure.value is not None
        assert len(figure.samples) == 5
        assert figure.upper is not None
        assert figure.upper > 0  # a sample can be negative: its base was disturbed
    assert speed.update.upper is not None
    assert speed.update.upper > 1


def test_an_array_is_found_sooner_than_a_key_of_a_hash(obj: Object) -> None:
    assert value(obj.maps["array"], "lookup") < 0.5 * value(obj.maps["hash"], "lookup")


def test_an_update_takes_longer_than_a_look_up(obj: Object) -> None:
    assert value(obj.maps["hash"], "update") > value(obj.maps["hash"], "lookup")


def test_the_map_itself_stays_as_it_was(load: Load) -> None:
    table = load(MAPS, max_entries={"hash": 4096}).maps["hash"]
    before = {key: key for key in range(3000)}
    table.update(before)
    assert value(table, "update") > 0
    assert dict(table.items()) == before


def test_a_map_that_programs_only_read(obj: Object) -> None:
    speed = map_speed(obj.maps["given"], batches=3)
    assert speed.lookup.value is not None
    assert speed.update.value is None
    assert speed.update.why_not == "programs may only read this map (BPF_F_RDONLY_PROG)"


def test_a_map_without_keys(obj: Object) -> None:
    speed = map_speed(obj.maps["queue"])
    assert [figure.why_not for figure in speed.figures()] == [
        "a queue has no keys that a program looks up"
    ] * 2


def test_no_batch(obj: Object) -> None:
    with pytest.raises(BpfError, match="one batch at least: batches=0"):
        map_speed(obj.maps["hash"], batches=0)


def test_with_the_other_costs(obj: Object) -> None:
    found = costs_of(
        obj, lambda: obj.programs["pass"].test_run(bytes(64)), rounds=1, speed=["hash"]
    )
    assert found.maps["array"].speed is None
    speed = found.maps["hash"].speed
    assert speed is not None
    assert set(speed.figures()) <= set(found.figures())
    with pytest.raises(UnknownNameError, match="did you mean 'hash'"):
        costs_of(obj, speed=["hsah"])

"""Many elements written and deleted in one go: from arrays, mappings and iterables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_bpf.errors import MapError, ValueTypeError
from pytest_bpf.kernel.maps import batches, elements
from pytest_bpf.kernel.maps.elements import possible_cpus
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from pytest_bpf.objects import Object
    from tests.conftest import Load

CPUS = possible_cpus()

SOURCE = """
#define MAP(name, kind, entries, k, v, more...) \\
    struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, entries); \\
             __type(key, k); __type(value, v); more } name SEC(".maps")
struct many_key { __u8 address[4]; __u16 port; } __attribute__((packed));
struct many { __u8 odd; __s32 n; __u16 low : 4, high : 12; char name[6]; __u32 pair[2]; };
struct triple { __u8 bytes[3]; };
struct prefix { __u32 length; __u8 address[4]; };
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4);
               __type(key, __u32); __type(value, __u64); } red SEC(".maps"), blue SEC(".maps");
MAP(table, HASH, 3000, struct many_key, struct many);
MAP(spread, PERCPU_HASH, 3000, __u32, struct triple);
MAP(cells, ARRAY, 8, __u32, struct many);
MAP(numbers, HASH, 8, __u32, __u64);
MAP(small, HASH, 8, __s16, __u8);
MAP(sums, PERCPU_ARRAY, 8, __u32, __u64);
MAP(pairs, HASH, 8, __u32, __u32[2]);
MAP(routes, LPM_TRIE, 8, struct prefix, __u32, __uint(map_flags, BPF_F_NO_PREALLOC););
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
         __array(values, struct inner); } tables SEC(".maps");
"""


@pytest.fixture
def obj(load: Load) -> Object:
    return load(SOURCE.replace("__u32[2]", "struct { __u32 n[2]; }"))


def test_a_snapshot_can_be_written_back(obj: Object) -> None:
    table, spread, cells = (obj.maps[name] for name in ("table", "spread", "cells"))
    value = {"odd": 1, "n": -5, "low": 3, "high": 99, "name": "abc", "pair": (1, 2)}
    table.update({(bytes((n % 256, n >> 8, 0, 0)), 7): {**value, "n": n} for n in range(3000)})
    spread.update({n: [bytes((cpu, 2, n % 256)) for cpu in range(CPUS)] for n in range(3000)})
    cells.update(dict.fromkeys(range(8), value))
    for of in (table, spread, cells):
        before = of.copy()
        assert len(before) == of.max_entries
        of.clear()
        assert of != before
        assert of.update_many(before.array) == of.max_entries
        assert of == before
        of.clear()
        of.update(before)
        assert of == before


@pytest.mark.parametrize("form", ["u4", "i8", "u8", "i2", ">i4"])
def test_numbers_of_any_size_that_fit(obj: Object, form: str) -> None:
    numbers, small = obj.maps["numbers"], obj.maps["small"]
    of = np.arange(5, dtype=form)
    assert numbers.update_many(of, of * 10) == 5
    assert numbers == {n: 10 * n for n in range(5)}
    assert small.update_many(of[::2], of[::2]) == 3
    assert small == {0: 0, 2: 2, 4: 4}


def test_what_does_not_fit_is_said_before_anything_is_written(obj: Object) -> None:
    numbers, small = obj.maps["numbers"], obj.maps["small"]
    cases: list[tuple[Any, Any, Any, str]] = [
        (small, np.array([1, 40_000]), [1, 2], "map 'small', keys: 40000 does not fit short"),
        (small, [1, 2], np.array([1, -1]), "map 'small', values: -1 does not fit unsigned char"),
        (small, [1, "x"], [1, 2], "key: short takes an int, not str 'x'"),
        (small, [1, 2], [1, 300], "value: 300 does not fit unsigned char"),
        (numbers, [1, 2], [1], "2 keys and 1 values given"),
        (numbers, np.array([1.5]), [1], "unsigned int takes an int, not float"),
        (numbers, [1], np.array([2**63 + 2**62, 5]), "1 keys and 2 values given"),
        (numbers, [1], np.zeros((1, 3), "u8"), "takes an int, not list"),
    ]
    for of, keys, values, words in cases:
        with pytest.raises((ValueTypeError, MapError), match=words):
            of.update_many(keys, values)
    assert len(numbers) == len(small) == 0
    with pytest.raises(MapError, match="none of any, noexist, exist"):
        numbers.update_many([1], [1], "new")


def test_any_iterable_will_do(obj: Object) -> None:
    numbers = obj.maps["numbers"]
    assert numbers.update_many((n for n in range(3)), (n * n for n in range(3))) == 3
    assert numbers.update_many([(7, 49)]) == 1
    assert numbers.update_many({6: 36}.items()) == 1
    assert numbers.update_many([], []) == numbers.update_many({}) == numbers.delete_many([]) == 0
    assert numbers == {0: 0, 1: 1, 2: 4, 7: 49, 6: 36}
    obj.maps["pairs"].update_many([1], np.array([((5, 6),)], [("n", "u4", 2)]))
    assert obj.maps["pairs"][1].n == (5, 6)


def test_values_for_each_cpu_or_the_same_for_all(obj: Object) -> None:
    sums, spread = obj.maps["sums"], obj.maps["spread"]
    each = np.arange(8 * CPUS, dtype="u8").reshape(8, CPUS)
    sums.update_many(np.arange(8), each)
    assert (sums.snapshot()["value"] == each).all()
    sums.update_many(np.arange(8), np.arange(8))
    assert [set(values) for values in sums.values()] == [{n} for n in range(8)]
    spread.update_many(range(2), [[b"abc"] * CPUS, b"def"])
    assert spread[0] == ((b"abc",),) * CPUS
    with pytest.raises(MapError, match=f"{CPUS + 1} values given, there are {CPUS} possible CPUs"):
        sums.update_many([0], np.zeros((1, CPUS + 1), "u8"))


def test_a_map_that_fills_up_says_how_many_are_set(obj: Object) -> None:
    numbers = obj.maps["numbers"]
    words = (
        r"map 'numbers' \(hash\): key 8 cannot be set: the map is full: max_entries is 8 .*; "
        "of 12 elements the 8 before it are set, the others are not"
    )
    for keys in (range(12), np.arange(12)):
        numbers.clear()
        with pytest.raises(MapError, match=words):
            numbers.update_many(keys, np.arange(12))
        assert numbers == {n: n for n in range(8)}
    with pytest.raises(MapError, match="key 9 cannot be set: the index is past the end"):
        obj.maps["cells"].update({1: {"n": 1}, 9: {}})
    assert obj.maps["cells"][1].n == 1


def test_flags_hold_for_each(obj: Object) -> None:
    numbers = obj.maps["numbers"]
    numbers[2] = 20
    with pytest.raises(
        MapError, match=r"key 2 cannot be set: the key exists already .* the 2 before"
    ):
        numbers.update_many(range(4), range(4), "noexist")
    assert numbers == {0: 0, 1: 1, 2: 20}
    assert numbers.update_many([0, 1], [7, 8], "exist") == 2
    with pytest.raises(MapError, match=r"key 5 cannot be set: ENOENT.* the 0 before it"):
        numbers.update_many([5], [7], "exist")


def test_a_frozen_map_takes_nothing(obj: Object) -> None:
    numbers = obj.maps["numbers"]
    numbers[1] = 1
    numbers.freeze()
    refused = r"key 1 cannot be .*: .*frozen .* the 0 before it"
    with pytest.raises(MapError, match=refused):
        numbers.update_many([1, 2], [3, 4])
    with pytest.raises(MapError, match=refused):
        numbers.delete_many([1, 2])
    assert numbers == {1: 1}


def test_deleting_many_passes_over_what_is_missing(obj: Object) -> None:
    numbers = obj.maps["numbers"]
    numbers.update({n: n for n in range(8)})
    assert numbers.delete_many(np.array([0, 100, 1, 101, 102, 2])) == 3
    assert numbers.delete_many(iter([3, 0])) == 1
    assert sorted(numbers) == [4, 5, 6, 7]
    assert numbers.delete_many(list(numbers)) == 4
    with pytest.raises(MapError, match="key 0 cannot be deleted: the elements of an array"):
        obj.maps["cells"].delete_many([0])


def test_kinds_with_keys_and_values_of_their_own(obj: Object) -> None:
    routes, tables = obj.maps["routes"], obj.maps["tables"]
    routes.update_many(["10.0.0.0/8", "10.1.0.0/16"], [8, 16])
    assert routes["10.1.2.3"] == 16
    again = routes.snapshot()
    assert routes.delete_many(routes) == 2
    routes.update_many(again)
    assert routes["10.2.2.3"] == 8
    tables.update({1: obj.maps["red"], 2: obj.maps["blue"]})
    obj.maps["red"][3] = 4
    assert tables[1] == tables.copy()[1] == {3: 4}
    assert [inner.id for inner in tables.values()] == [inner.id for inner in tables.copy().values()]


@pytest.mark.parametrize("code", sorted(batches.LACKING))
def test_without_batches_one_by_one(
    obj: Object, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As on kernels and for kinds of map that have none."""
    called = libbpf.call

    def without(name: str, *arguments: Any) -> Any:
        if name.endswith("_batch"):
            raise OSError(code, "no batches")
        return called(name, *arguments)

    monkeypatch.setattr(libbpf, "call", without)
    numbers = obj.maps["numbers"]
    assert numbers.update_many(range(8), range(8)) == 8
    assert numbers == {n: n for n in range(8)}
    with pytest.raises(MapError, match=r"key 9 cannot be set: .*full.* the 1 before it are set"):
        numbers.update_many([0, 9], [5, 5])
    assert numbers[0] == 5
    assert numbers.delete_many([1, 100, 2]) == 2
    assert len(numbers) == 6
    numbers.clear()
    assert len(numbers) == 0


def test_one_by_one_gives_up_on_keys_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "keys", lambda *_: iter(lambda: b"same", None))
    monkeypatch.setattr(elements, "lookup", lambda *_: b"value")
    with pytest.raises(OSError, match="deleted faster than they can be read"):
        batches.one_by_one(-1, 4, 5)


def test_a_trie_that_begins_again_counts_each_key_once(
    obj: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the key on which a batch ended is deleted before the next one."""
    routes = obj.maps["routes"]
    routes.update({f"10.{n}.0.0/16": n for n in range(5)})
    whole = list(batches.by_batches(routes.fd, 8, 4, 8))
    monkeypatch.setattr(batches, "by_batches", lambda *_: iter([*whole, *whole]))
    assert sorted(routes.values()) == list(range(5))
    assert len(routes) == len(routes.snapshot()) == 5

"""Maps as mappings: each plain kind read, written, refused and taken as a snapshot."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import LoadError, MapError, UnknownNameError, ValueTypeError
from pytest_bpf.kernel.maps.elements import possible_cpus
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.objects import Map, PerCPU

if TYPE_CHECKING:
    from pytest_bpf.objects import Object
    from tests.conftest import Load

KINDS = ("hash", "array", "percpu_hash", "percpu_array", "lru_hash", "lru_percpu_hash")
CPUS = possible_cpus()


def declared(
    name: str, kind: str, *, entries: int = 8, value: str = "struct v", more: str = ""
) -> str:
    return (
        f"struct {{ __uint(type, BPF_MAP_TYPE_{kind.upper()}); __uint(max_entries, {entries}); "
        f'__type(key, __u32); __type(value, {value}); {more} }} {name} SEC(".maps");\n'
    )


SOURCE = """
struct v { __u8 odd; __u32 n; };
struct flagged { __u16 low : 4, high : 12; char name[7]; } __attribute__((packed));
""" + "".join(
    [
        *(declared(kind, kind) for kind in KINDS),
        declared("numbers", "hash", value="__u64"),
        declared("three", "percpu_hash", value="struct flagged"),
        declared("bytes", "array", value="__u8", more="__uint(map_flags, BPF_F_MMAPABLE);"),
        declared("flags", "percpu_array", value="struct flagged"),
    ]
)


@pytest.fixture
def obj(load: Load) -> Object:
    return load(SOURCE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_a_mapping(obj: Object, kind: str) -> None:
    of = obj.maps[kind]
    array = kind.endswith("array")
    value = PerCPU([(1, 2)] * CPUS) if of.per_cpu else (1, 2)
    of[3] = (1, 2)
    of.update({4: (1, 2), 5: (1, 2)})
    assert of[3] == value
    assert 3 in of
    assert 99 not in of
    assert len(of) == (8 if array else 3)
    assert sorted(of) == (list(range(8)) if array else [3, 4, 5])
    assert dict(of.items())[4] == value
    assert of.values().count(value) == 3
    assert (of.type, of.key_size, of.value_size, of.max_entries) == (kind, 4, 8, 8)
    assert of.per_cpu == ("percpu" in kind)
    if array:
        with pytest.raises(MapError, match=f"the elements of an? {kind} cannot be deleted"):
            del of[3]
    else:
        del of[3]
        with pytest.raises(KeyError, match="3"):
            of[3]
        with pytest.raises(KeyError, match="3"):
            del of[3]
        assert of.pop(4) == value
        assert of.pop(4, None) is None
    of.clear()
    assert of.sum() == (0 if not array else (0, 0))
    assert len(of) == (8 if array else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_snapshots_of_all_sizes(obj: Object, kind: str) -> None:
    of = obj.maps[kind]
    empty = of.snapshot()
    assert len(empty) == (8 if kind.endswith("array") else 0)
    of[1] = (7, 2**32 - 1)
    snapshot = of.snapshot()
    row = snapshot[snapshot["key"] == 1]
    assert row["value"]["odd"].sum() == 7 * (CPUS if of.per_cpu else 1)
    assert row["value"].shape == ((1, CPUS) if of.per_cpu else (1,))
    assert row["value"]["n"].max() == 2**32 - 1


def test_snapshots_of_odd_sizes(obj: Object) -> None:
    """Nine bytes a value and CPU, rounded up to sixteen; one byte in an array; bit-fields."""
    three, flags, single = obj.maps["three"], obj.maps["flags"], obj.maps["bytes"]
    assert three.value_size == 9
    values = [{"low": cpu % 16, "high": 0xABC, "name": "abcde"} for cpu in range(CPUS)]
    three[7] = flags[7] = PerCPU(values)
    assert three[7] == tuple(values)
    for of in (three, flags):
        row = of.snapshot()["value"][-1]
        assert list(row["name"]) == [b"abcde"] * CPUS
        assert list(row["bits0"]) == [cpu | 0xABC0 for cpu in range(CPUS)]
    single[7] = 200
    assert single.snapshot()["value"].tolist() == [0] * 7 + [200]


def test_a_large_map_comes_in_batches(load: Load) -> None:
    source = "struct v { __u64 n[16]; };" + declared("big", "hash", entries=20_000)
    big = load(source).maps["big"]
    for key in range(20_000):
        big[key] = {"n": (key,)}
    snapshot = big.snapshot()
    assert sorted(snapshot["key"]) == list(range(20_000))
    assert (snapshot["value"]["n"][:, 0] == snapshot["key"]).all()
    assert len(big) == 20_000
    big.clear()
    assert not big


def test_sums(obj: Object) -> None:
    numbers, counts = obj.maps["numbers"], obj.maps["percpu_hash"]
    assert numbers.sum() == 0
    numbers.update({1: 10, 2: 20})
    assert (numbers.sum(), numbers.sum(1)) == (30, 10)
    counts[1] = [(cpu, 2) for cpu in range(CPUS)]
    assert counts.sum(1) == (sum(range(CPUS)), 2 * CPUS)
    assert counts[1].sum() == counts.sum()
    with pytest.raises(KeyError):
        numbers.sum(3)
    obj.maps["flags"][0] = {"name": "x"}
    with pytest.raises(MapError, match="'name' is of type str, which has no sum; sum one member"):
        obj.maps["flags"].sum(0)


def test_refusals_of_values_and_keys(obj: Object) -> None:
    hash_, array, counts = obj.maps["hash"], obj.maps["array"], obj.maps["percpu_hash"]
    cases: list[tuple[Map, Any, Any, str]] = [
        (hash_, "x", (1, 2), "map 'hash', key: unsigned int takes an int, not str 'x'"),
        (hash_, -1, (1, 2), "key: -1 does not fit unsigned int"),
        (hash_, b"abc", (1, 2), "3 raw bytes given, unsigned int has 4"),
        (hash_, 1, (1, 2, 3), "map 'hash', value: 3 members given, struct v has 2: odd, n"),
        (hash_, 1, {"m": 1}, "has no member 'm'"),
        (hash_, 1, b"1234567", "7 raw bytes given, struct v has 8"),
        (counts, 1, [(1, 2)] * (CPUS + 1), f"there are {CPUS} possible CPUs"),
        (counts, 1, [(1, 2)] * (CPUS - 1) + ["x"], f"value of CPU {CPUS - 1}: struct v takes"),
        (array, 8, (1, 2), "update of key 8 failed: the index is past the end, max_entries is 8"),
        (obj.maps["percpu_array"], 8, (1, 2), "index is past the end"),
    ]
    for of, key, value, words in cases:
        with pytest.raises((ValueTypeError, MapError), match=words):
            of[key] = value
    with pytest.raises(KeyError):
        array[8]
    with pytest.raises(MapError, match="none of any, noexist, exist"):
        hash_.put(1, (1, 2), "new")
    with pytest.raises(UnknownNameError, match=r"has no map 'hahs'; did you mean 'hash'"):
        obj.maps["hahs"]


def test_flags_of_an_update(obj: Object) -> None:
    hash_ = obj.maps["hash"]
    hash_.put(1, (1, 1), "noexist")
    with pytest.raises(MapError, match="exists already and the flag is 'noexist'"):
        hash_.put(1, (2, 2), "noexist")
    hash_.put(1, (3, 3), "exist")
    with pytest.raises(KeyError):
        hash_.put(2, (1, 1), "exist")
    assert hash_ == {1: (3, 3)}


def test_a_full_map_keeps_what_it_has(obj: Object) -> None:
    hash_, lru = obj.maps["hash"], obj.maps["lru_hash"]
    for key in range(8):
        hash_[key] = (0, key)
    with pytest.raises(
        MapError, match=r"update of key 8 failed: the map is full: max_entries is 8"
    ):
        hash_[8] = (0, 8)
    assert hash_ == {key: (0, key) for key in range(8)}
    for key in range(100):
        lru[key] = (0, key)
    assert 99 in lru
    assert len(lru) <= 8


def test_a_frozen_map_is_read_only(obj: Object) -> None:
    hash_ = obj.maps["hash"]
    hash_[1] = (1, 1)
    hash_.freeze()
    with pytest.raises(MapError, match="frozen or read-only"):
        hash_[1] = (2, 2)
    with pytest.raises(MapError, match="frozen or read-only"):
        hash_.clear()
    assert hash_ == {1: (1, 1)}


def test_memory_grows_with_the_entries(load: Load) -> None:
    source = "struct v { __u64 a; };" + declared("m", "array", entries=1)
    small, large = (load(source, max_entries={"m": n}).maps["m"] for n in (1_000, 100_000))
    assert large.max_entries == 100_000
    assert 800_000 <= large.memlock - small.memlock + 8_000 <= 900_000
    for wrong in (0, -1, 2**32):
        with pytest.raises(
            LoadError, match=f"map 'm': max_entries={wrong}; it takes 1 to 4294967295"
        ):
            load(source, max_entries={"m": wrong})
    with pytest.raises(UnknownNameError, match="has no map 'n'"):
        load(source, max_entries={"n": 1})


def test_a_map_is_found_again_by_its_id(obj: Object) -> None:
    obj.maps["hash"][5] = (6, 7)
    before = len(list(Path("/proc/self/fd").iterdir()))
    again = Map.from_id(obj.maps["hash"].id)
    assert again == {5: (6, 7)}
    assert again[5].odd == 6
    assert again.name == "hash"
    del again
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(MapError, match="there is no map with id"):
        Map.from_id(2**31 - 1)


def test_maps_are_shared_between_objects(load: Load, obj: Object) -> None:
    shared = obj.maps["hash"]
    other = load(SOURCE, maps={"hash": shared}).maps["hash"]
    other[1] = (2, 3)
    assert shared == {1: (2, 3)}
    assert other.id == shared.id
    with pytest.raises(LoadError, match="map 'array': 'hash' cannot take its place: it is a hash"):
        load(SOURCE, maps={"array": shared})
    with pytest.raises(LoadError, match="it is of value_size 8, not 16"):
        load("struct v { __u64 n[2]; };" + declared("hash", "hash"), maps={"hash": shared})


def test_a_map_outlives_its_object_by_a_pin(load: Load, obj: Object) -> None:
    with PinDirectory() as pins:
        path = pins.path / "table"
        obj.maps["hash"][5] = (6, 7)
        obj.maps["hash"].pin(path)
        with pytest.raises(MapError, match=f"pinning to {path} failed: something is pinned there"):
            obj.maps["array"].pin(path)
        obj.close()
        found = Map.from_pin(path)
        assert found == {5: (6, 7)}
        again = load(SOURCE, maps={"hash": found}).maps["hash"]
        assert (again.id, again[5].n) == (found.id, 7)
        program = load('SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }')
        program.programs["pass"].pin(pins.path / "program")
        with pytest.raises(
            MapError, match=r"there is no map pinned to .*/program, but something else"
        ):
            Map.from_pin(pins.path / "program")
        with pytest.raises(MapError, match=r"there is no map pinned to .*/none: .*No such file"):
            Map.from_pin(pins.path / "none")
        with pytest.raises(LoadError, match=r"program 'pass' cannot be pinned to /proc/x: .*bpffs"):
            program.programs["pass"].pin("/proc/x")


def test_a_closed_map_says_so(obj: Object) -> None:
    hash_ = obj.maps["hash"]
    obj.close()
    with pytest.raises(MapError, match="map 'hash' is gone: its object was closed"):
        hash_[1]
    assert "closed" in repr(hash_)


def test_a_pinning_in_the_source_pins_nothing(load: Load, obj: Object, tmp_path: Path) -> None:
    source = "struct v { __u64 a; };" + declared(
        "mine", "hash", more="__uint(pinning, LIBBPF_PIN_BY_NAME);"
    )
    one, other = load(source).maps["mine"], load(source).maps["mine"]
    one[1] = (1,)
    assert not other
    with pytest.raises(MapError, match=f"pinning to {tmp_path}/x failed"):
        obj.maps["hash"].pin(tmp_path / "x")

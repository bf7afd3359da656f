"""Whole maps read and decoded in bulk: every way gives the same, also while the map changes."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from pytest_bpf.errors import MapError, with_article
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.maps import batches, dump, dump_checks, elements
from pytest_bpf.kernel.maps.dump import MapDump
from pytest_bpf.kernel.maps.dump_program import Shape
from pytest_bpf.kernel.maps.elements import possible_cpus
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.descriptors import open_objects
from pytest_bpf.kernel.sys.libbpf_options import MapOptions
from pytest_bpf.kinds.maps import FOR_EACH, INDEXED
from pytest_bpf.objects import Map
from pytest_bpf.objects.maps import reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Object
    from tests.conftest import Load

CPUS = possible_cpus()
ENTRIES = 200
KINDS = sorted(FOR_EACH)


@contextmanager
def created(
    kind: str, key_size: int, value_size: int, entries: int = ENTRIES, flags: int = 0
) -> Iterator[int]:
    options = ctypes.byref(MapOptions(map_flags=flags))
    number = enums.map_type_id(kind)
    fd = libbpf.call("bpf_map_create", number, b"bulk", key_size, value_size, entries, options)
    try:
        yield fd
    finally:
        os.close(fd)


def filled(fd: int, kind: str, key_size: int, stride: int, count: int = ENTRIES) -> None:
    """Give a map random values under keys that differ in every byte they have."""
    rng = random.Random(1)
    keys: set[bytes] = set()
    while len(keys) < min(count, 100 if key_size == 1 else count):
        keys.add(rng.randbytes(key_size))
    if kind in INDEXED:
        keys = {number.to_bytes(4, "little") for number in range(count)}
    for key in keys:
        elements.update(fd, key, rng.randbytes(stride))


def as_elements(content: batches.Content) -> dict[bytes, bytes]:
    k, v = (len(ends) // content.count for ends in (content.keys, content.values))
    return {
        content.keys[i * k : i * k + k]: content.values[i * v : i * v + v]
        for i in range(content.count)
    }


def dumped(rows: np.ndarray[Any, Any], step: int, cpus: int) -> dict[bytes, bytes]:
    """Return what a dump copied, in the form of the others: zeros after each CPU's value."""
    each = [rows["value"][:, cpu] for cpu in range(cpus)] if cpus else [rows["value"]]
    return {
        rows["key"][i].tobytes(): b"".join(
            values[i].tobytes().ljust(step, b"\0") if cpus else values[i].tobytes()
            for values in each
        )
        for i in range(len(rows))
    }


@pytest.mark.parametrize(
    ("key_size", "value_size"), [(4, 8), (1, 1), (2, 3), (3, 7), (5, 13), (8, 16), (20, 300)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_reads_the_same(kind: str, key_size: int, value_size: int) -> None:
    indexed, per_cpu = kind in INDEXED, "percpu" in kind
    key_size = 4 if indexed else key_size
    cpus = CPUS if per_cpu else 0
    shape = Shape(indexed, key_size, value_size, cpus)
    stride = shape.step * cpus if per_cpu else value_size
    with created(kind, key_size, value_size) as fd:
        filled(fd, kind, key_size, stride)
        singly = as_elements(batches.one_by_one(fd, key_size, stride))
        assert len(singly) >= 100
        batch = batches.join(batches.by_batches(fd, key_size, stride, ENTRIES, most=7))
        assert as_elements(batch) == singly
        made = dump_of(fd, kind, shape)
        for _ in range(2):
            rows = made.read()
            assert rows is not None
            ours = dumped(rows, shape.step, cpus)
            if per_cpu:  # the kernel keeps what lies between the CPUs' values, a dump does not
                singly = {key: without_gaps(value, shape) for key, value in singly.items()}
            assert ours == singly
            assert len(rows) == len(singly)
        made.close()


def dump_of(fd: int, kind: str, shape: Shape) -> MapDump:
    """Return the dump program of a map; skip on kernels that have none for its kind."""
    try:
        return MapDump(fd, kind, shape, ENTRIES)
    except OSError as error:
        pytest.skip(f"this kernel has no dump program for a {kind}: {error.strerror}")


def without_gaps(value: bytes, shape: Shape) -> bytes:
    each = (value[at : at + shape.value_size] for at in range(0, len(value), shape.step))
    return b"".join(one.ljust(shape.step, b"\0") for one in each)


def test_a_dump_grows_with_its_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "FIRST_ROOM", 2)
    monkeypatch.setattr(dump, "GROWTH", 3)
    with created("hash", 4, 8) as fd:
        before = open_objects()
        made = MapDump(fd, "hash", Shape(False, 4, 8, 0), ENTRIES)
        for number in (0, 1, 2, 3, 150, ENTRIES - 1):
            elements.update(fd, number.to_bytes(4, "little"), bytes(8))
            rows = made.read()
            assert rows is not None
            assert number in rows["key"]
        for number in range(ENTRIES):
            elements.update(fd, number.to_bytes(4, "little"), bytes(8))
        rows = made.read()
        assert rows is not None
        assert sorted(rows["key"]) == list(range(ENTRIES))
        assert len(open_objects() - before) == 2, "the program and its rows"
        made.close()
        assert open_objects() == before


def test_many_dumps_leave_nothing() -> None:
    with created("percpu_hash", 4, 100, 1500) as fd:
        filled(fd, "percpu_hash", 4, 104 * CPUS, 1500)

        def life(ending: str) -> None:
            made = MapDump(fd, "percpu_hash", Shape(False, 4, 100, CPUS), 1500)
            rows = made.read()
            assert rows is not None
            assert len(rows) == 1500
            if ending == "closed":
                made.close()

        for _ in range(5):
            life("closed")
        before, memory = footprint()
        for number in range(30):
            life("closed" if number % 2 else "forgotten")
        after, more = footprint()
        assert after == before
        assert more - memory < 4 << 20


def footprint() -> tuple[Any, int]:
    """Return what is open, and the resident bytes."""
    gc.collect()
    files = len(list(Path("/proc/self/fd").iterdir()))
    return (open_objects(), files), psutil.Process().memory_info().rss


def test_a_dump_of_an_empty_map() -> None:
    with created("hash", 4, 8) as fd:
        rows = MapDump(fd, "hash", Shape(False, 4, 8, 0), ENTRIES).read()
    assert rows is not None
    assert rows.shape == (0,)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("lpm_trie", Shape(False, 8, 8, 0)),
        ("queue", Shape(False, 0, 8, 0)),
        ("array", Shape(True, 4, 100_000, 0)),
    ],
)
def test_what_has_no_dump_program_is_refused(kind: str, shape: Shape) -> None:
    with pytest.raises(OSError, match=f"no dump program for {with_article(kind)} of this size"):
        MapDump(-1, kind, shape, 10)
    with pytest.raises(OSError, match="Bad file"):
        MapDump(-1, "hash", Shape(False, 4, 8, 0), 10)


SOURCE = """
#define MAP(name, kind, entries, k, v, more...) \\
    struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, entries); \\
             __type(key, k); __type(value, v); more } name SEC(".maps")
enum mode { IDLE, BUSY = 7 };
struct bulk_key { __u8 address[4]; __u16 port; } __attribute__((packed));
struct bulk_stats { __u8 odd; __s32 n; enum mode mode; __u16 low : 4, high : 12; char name[6];
               __u32 pair[2]; struct { bool on; double rate; } in; };
struct bulk_locked { struct bpf_spin_lock lock; __u32 n; };
MAP(stats, HASH, 3000, struct bulk_key, struct bulk_stats);
MAP(counts, PERCPU_HASH, 3000, __u32, struct bulk_stats);
MAP(cells, ARRAY, 3000, __u32, struct bulk_stats);
MAP(locks, HASH, 3000, __u32, struct bulk_locked);
MAP(shared, ARRAY, 3000, __u32, struct bulk_stats, __uint(map_flags, BPF_F_MMAPABLE););
MAP(few, ARRAY, 3, __u32, __u8, __uint(map_flags, BPF_F_MMAPABLE););
MAP(live, HASH, 1, __u32, __u64);
MAP(lively, HASH, 1, __u32, __u64, __uint(map_flags, BPF_F_NO_PREALLOC););
const volatile __u32 stay = 1, churn = 1; volatile const bool lazily;
static __always_inline void change(void *map) {
    __u32 random = bpf_get_prandom_u32(), key = stay + random % churn;
    __u64 value = random;
    bpf_map_delete_elem(map, &key);
    key = stay + (random >> 16) % churn;
    bpf_map_update_elem(map, &key, &value, BPF_ANY);
    key = random % stay;
    value = (__u64)random << 32 | random;
    bpf_map_update_elem(map, &key, &value, BPF_ANY);
}
SEC("tc") int write(struct __sk_buff *skb) { change(&live); return 0; }
SEC("tc") int write_lazily(struct __sk_buff *skb) { change(&lively); return 0; }
"""


@pytest.fixture
def obj(load: Load) -> Object:
    return load(SOURCE)


def value(n: int) -> dict[str, Any]:
    inner = {"on": n % 2, "rate": n / 4}
    return {
        "odd": n % 256,
        "n": -n,
        "mode": (0, 7, 9)[n % 3],
        "low": n % 16,
        "high": n % 4096,
        "name": str(n % 1000),
        "pair": (n, n + 1),
        "in": inner,
    }


@pytest.mark.parametrize("name", ["stats", "counts", "cells", "shared", "locks"])
def test_few_and_many_elements_are_the_same_values(obj: Object, name: str) -> None:
    """One by one from batches, and in bulk from the dump program or the memory."""
    of = obj.maps[name]
    keys = [(bytes((n % 256, n >> 8, 0, 0)), n) if name == "stats" else n for n in range(3000)]
    of.update({key: {"n": n} if name == "locks" else value(n) for n, key in enumerate(keys)})
    singly = {of.layout.decode_key(k): of.layout.decode_value(v) for k, v in of.raw_items()}
    assert len(singly) == 3000
    copied = of.copy()
    assert dict(copied.items()) == singly
    assert {type(v) for v in copied.values()} == {type(v) for v in singly.values()}
    assert list(copied) == [key for key, _ in copied.items()]
    key = keys[1234]
    assert copied[key] == singly[key] == of[key]
    assert key in copied
    assert (len(copied), len(of)) == (3000, 3000)
    assert copied == of == singly
    with pytest.raises(KeyError):
        copied[3000 if name != "stats" else (b"none", 1)]
    snapshot = of.snapshot()
    assert snapshot.shape == (3000,)
    shown = singly.values() if of.per_cpu else ((v,) for v in singly.values())
    assert snapshot["value"]["n"].sum() == sum(v.n for values in shown for v in values)


def test_a_copy_is_a_mapping_of_its_own(obj: Object) -> None:
    stats = obj.maps["stats"]
    stats[(b"abcd", 1)] = {"n": 1}
    before = stats.copy()
    stats[(b"abcd", 2)] = {"n": 2}
    assert len(before) == 1
    assert before != stats
    assert before[(b"abcd", 1)].n == 1
    assert repr(before) == "<Contents of stats, 1 elements>"
    assert before.array["value"]["n"].tolist() == [1]
    obj.close()
    assert [v.n for v in before.values()] == [1]


def test_a_map_with_a_spin_lock_is_read_by_batches(obj: Object) -> None:
    locks = obj.maps["locks"]
    locks.update({n: {"n": n} for n in range(3000)})
    assert sorted(locks.snapshot()["value"]["n"]) == list(range(3000))
    assert locks._reads._dump is None


def test_a_dump_program_comes_when_it_pays(obj: Object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WORTH_A_PROGRAM", 10)
    few = obj.maps["stats"]
    again = Map.from_id(few.id)
    few.update({(b"abcd", n): {"n": n} for n in range(4)})
    before = open_objects()
    for number in range(3):
        assert (len(again), number < 2) == (4, again._reads._dump is None)
    assert len(open_objects() - before) == 2
    del again
    assert open_objects() == before


def test_closed_maps_free_what_was_set_up(load: Load) -> None:
    others = open_objects()
    obj = load(SOURCE)
    before = open_objects()
    for name in ("stats", "counts", "cells"):
        of = obj.maps[name]
        if name != "cells":
            of.update({((0,) * 4, n) if name == "stats" else n: {} for n in range(3000)})
        assert len(of) >= 3000
        assert of._reads._dump is not None
    assert len(open_objects() - before) == 6
    obj.close()
    assert open_objects() == others
    with pytest.raises(MapError, match="map 'stats' is gone: its object was closed"):
        obj.maps["stats"].snapshot()


def test_closing_while_another_thread_reads(obj: Object) -> None:
    cells, ended = obj.maps["cells"], []

    def read() -> None:
        try:
            while True:
                assert len(cells.snapshot()) == 3000
        except MapError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    while cells._reads._dump is None:
        os.sched_yield()
    obj.close()
    for thread in threads:
        thread.join(120)
    assert len(ended) == 2
    assert all("'cells' is gone: its object was closed" in words for words in ended)


def test_a_view_shows_what_is_there_and_outlives_the_map(obj: Object) -> None:
    shared, few = obj.maps["shared"], obj.maps["few"]
    seen, bytes_seen = shared.view(), few.view()
    assert (seen.shape, bytes_seen.shape) == ((3000,), (3,))
    shared[2999] = {"n": 7, "name": "last"}
    few[2] = 255
    assert seen["n"][-1] == 7
    assert seen["name"][-1] == b"last"
    assert bytes_seen.tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match="read-only"):
        seen["n"][0] = 1
    frozen = shared.snapshot()
    shared[2999] = {"n": 8}
    assert (frozen["value"]["n"][-1], seen["n"][-1]) == (7, 8)
    before, name = open_objects(), f"map {shared.id}"
    obj.close()
    assert seen["n"].sum() == 8
    assert name in before & open_objects(), "a view keeps its map"
    del seen
    assert name not in open_objects()
    with pytest.raises(MapError, match="'shared' is gone"):
        shared.view()


def test_what_cannot_be_viewed_says_what_can(obj: Object) -> None:
    with pytest.raises(MapError, match=r"'cells' \(array\) has no memory to look at: .*MMAPABLE"):
        obj.maps["cells"].view()
    with pytest.raises(MapError, match=r"'stats' \(hash\) has no memory to look at"):
        obj.maps["stats"].view()


@pytest.mark.parametrize(("name", "program"), [("live", "write"), ("lively", "write_lazily")])
@pytest.mark.parametrize("stay", [2, 10, 3000])
def test_what_stays_is_there_once_while_others_come_and_go(
    load: Load, name: str, program: str, stay: int
) -> None:
    """A writer replaces the keys that stay and deletes and inserts as many others."""
    obj = load(SOURCE, max_entries={name: 2 * stay}, globals={"stay": stay, "churn": stay})
    of, write = obj.maps[name], obj.programs[program]
    of.update(dict.fromkeys(range(stay), 0))
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            write.test_run(data=bytes(64), repeat=1000)

    writer = threading.Thread(target=churn)
    of._reads._credit = -1
    writer.start()
    try:
        for _ in range(3000 if stay < 100 else 60):
            snapshot = of.snapshot()
            keys = snapshot["key"]
            assert len(np.unique(keys)) == len(keys)
            stayed = snapshot[keys < stay]
            assert len(stayed) == stay
            assert (stayed["value"] >> 32 == stayed["value"] % 2**32).all()
    finally:
        stop.set()
        writer.join()
    assert of._reads._dump is not None


def test_a_dump_that_is_led_astray_gives_way_to_batches(
    obj: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = obj.maps["stats"]
    stats.update({(b"abcd", n): {"n": n} for n in range(3000)})
    assert len(stats) == 3000
    monkeypatch.setattr(MapDump, "_run", lambda _: dump_checks.ASTRAY)
    assert sorted(stats.snapshot()["value"]["n"]) == list(range(3000))

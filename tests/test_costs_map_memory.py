"""What a map takes: our sums against the kernel's own, type by type, empty and full."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import Map, UnavailableError
from pytest_bpf.costs.figures import map_memory
from pytest_bpf.kernel import features
from pytest_bpf.kernel.maps import elements, memory
from pytest_bpf.kernel.sys.perf_event import online_cpus
from pytest_bpf.kernel.sys.release import kernel_version
from pytest_bpf.kinds.flags import MapFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Load

told = pytest.mark.skipif(
    kernel_version() < map_memory.ALLOCATED_SINCE, reason="this kernel's figure is no sum"
)

LOCKS = 128
"""Bytes that kernels differ in: locks of the buckets of a hash map, a counter in a structure."""

SHAPES = [
    *(("array", 4, size, 0) for size in (4, 12, 1000)),
    ("array", 4, 12, MapFlags.MMAPABLE),
    ("percpu_array", 4, 12, 0),
    *((kind, 5, 12, 0) for kind in ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash")),
    ("lru_hash", 16, 100, MapFlags.NO_COMMON_LRU),
    *((kind, 16, 20, MapFlags.NO_PREALLOC) for kind in ("hash", "percpu_hash")),
    *((kind, 0, 12, 0) for kind in ("queue", "stack", "bloom_filter")),
    *((kind, 0, 0, 0) for kind in ("ringbuf", "user_ringbuf")),
    ("stack_trace", 4, 127 * 8, 0),
    *((kind, 4, 4, 0) for kind in ("prog_array", "perf_event_array", "cgroup_array")),
    *((kind, 4, 4, 0) for kind in ("devmap", "devmap_hash", "cpumap", "xskmap", "sockmap")),
    *((kind, 4, 4, 0) for kind in ("array_of_maps", "hash_of_maps")),
]


@pytest.fixture
def make() -> Iterator[Callable[..., Map]]:
    """Create a map without an object."""
    with ExitStack() as stack:

        def make(kind: str, key: int, value: int, entries: int, flags: int = 0) -> Map:
            inner = make("array", 4, 4, 1).fd if kind.endswith("_of_maps") else 0
            fd = elements.create(kind, key, value, entries, flags, inner=inner)
            stack.callback(os.close, fd)
            return Map(fd, kind)

        yield make


@told
@pytest.mark.parametrize("entries", [1, 3, 1000])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_formula_is_what_the_kernel_adds_up(
    make: Callable[..., Map], shape: tuple[str, int, int, int], entries: int
) -> None:
    kind, key, value, flags = shape
    if not features.map_type(kind):
        pytest.skip(f"this kernel has no {kind}")
    if kind in {"perf_event_array", "cpumap"}:
        entries = min(entries, os.cpu_count() or 1)
    if kind.endswith("ringbuf"):
        entries = os.sysconf("SC_PAGE_SIZE") << entries.bit_length()
    made = make(kind, key, value, entries, flags)
    assert map_memory.by_formula(made) == pytest.approx(made.memlock, abs=LOCKS)
    found = map_memory.map_memory(made)
    assert (found.kernel, found.user, found.by) == (made.memlock, 0, "kernel")


@told
@pytest.mark.parametrize("kind", ["hash", "percpu_hash"])
def test_what_is_not_allocated_beforehand_grows(make: Callable[..., Map], kind: str) -> None:
    made = make(kind, 8, 20, 1000, MapFlags.NO_PREALLOC)
    before = map_memory.by_formula(made)
    for key in range(200):
        made[key] = bytes(20)
    assert map_memory.by_formula(made) > before + 200 * 48
    assert map_memory.by_formula(made) == pytest.approx(made.memlock, abs=LOCKS)


@told
def test_a_trie_is_what_is_in_it(make: Callable[..., Map]) -> None:
    made = make("lpm_trie", 8, 8, 1000, MapFlags.NO_PREALLOC)
    for number in range(50):
        made[f"10.0.{number}.0/24"] = 1
    header = map_memory.by_formula(make("lpm_trie", 8, 8, 1000, MapFlags.NO_PREALLOC))
    assert map_memory.by_formula(made) - header == pytest.approx(made.memlock, abs=LOCKS)


def test_before_the_kernel_told_the_formula_does(
    make: Callable[..., Map], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_memory, "kernel_version", lambda: (6, 1, 174))
    found = map_memory.map_memory(make("hash", 8, 8, 10_000))
    assert found.by == "formula"
    assert found.total == pytest.approx(10_000 * 64 + 16_384 * 16, rel=0.02)
    without = make("queue", 0, 8, 4)
    monkeypatch.delitem(memory._FORMULAS, "queue")
    with pytest.raises(UnavailableError, match="no formula for the memory of a queue"):
        map_memory.map_memory(without)


PERF = """
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __type(key, __u32); __type(value, __u32); }
events SEC(".maps");
SEC("xdp") int put(struct xdp_md *ctx)
{
    __u64 n = 1;
    bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &n, sizeof(n));
    return 2;
}
"""


def test_perf_rings_are_added(load: Load) -> None:
    events = load(PERF).maps["events"]
    before = map_memory.map_memory(events)
    with events.events():
        during = map_memory.map_memory(events)
        assert during.user == len(online_cpus()) * 65 * os.sysconf("SC_PAGE_SIZE")
        assert during.total == before.total + during.user
    assert map_memory.map_memory(events).user == before.user == 0

"""The kinds of maps: one row for each, and the sets that follow from the rows.

To add a kind of map, add a row here; the modules that ask about a kind ask this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_bpf.kinds.flags import MapFlags


@dataclass(frozen=True)
class MapKind:
    """How the elements of one kind of map (libbpf's ``name``) are laid out and used.

    ``per_cpu``: a key has one value for each possible CPU. ``indexed``: keys are the numbers from 0
    to ``max_entries`` - 1. ``hashed``: keys are looked up by their hash. ``keyless``: elements have
    no key. ``key_fd``, ``value_fd``: user space gives a descriptor as the key, or as the value.
    ``map_of_maps``: its values are maps. ``queue``: elements are pushed and popped. ``events``: it
    holds events. ``for_each``: the kernel walks through it (``bpf_for_each_map_elem``). ``timed``:
    the cost of a look-up and an update can be measured.

    What the kernel asks for when it is created: ``key_sizes`` and ``value_sizes`` in bytes (none:
    any but 0; those of indexed and keyless kinds follow), ``entries`` ("positive", "zero", or
    "pages": a power of two of bytes, at least a page), and ``flags`` that must be set.
    """

    name: str
    per_cpu: bool = False
    indexed: bool = False
    hashed: bool = False
    keyless: bool = False
    key_fd: bool = False
    value_fd: bool = False
    map_of_maps: bool = False
    queue: bool = False
    events: bool = False
    for_each: bool = False
    timed: bool = False
    key_sizes: tuple[int, ...] = ()
    value_sizes: tuple[int, ...] = ()
    entries: str = "positive"
    flags: int = 0


_NONE, _U32, _FD_AND_MORE = (0,), (4,), (4, 8)
_NO_PREALLOC = MapFlags.NO_PREALLOC

_ROWS = (
    MapKind("hash", hashed=True, for_each=True, timed=True),
    MapKind("array", indexed=True, for_each=True, timed=True),
    MapKind("prog_array", indexed=True, value_fd=True, value_sizes=_U32),
    MapKind("perf_event_array", indexed=True, value_fd=True, events=True, value_sizes=_U32),
    MapKind("percpu_hash", per_cpu=True, hashed=True, for_each=True, timed=True),
    MapKind("percpu_array", per_cpu=True, indexed=True, for_each=True, timed=True),
    MapKind("stack_trace", indexed=True),
    MapKind("cgroup_array", indexed=True, value_fd=True, value_sizes=_U32),
    MapKind("lru_hash", hashed=True, for_each=True, timed=True),
    MapKind("lru_percpu_hash", per_cpu=True, hashed=True, for_each=True, timed=True),
    MapKind("lpm_trie", timed=True, flags=_NO_PREALLOC),
    MapKind("array_of_maps", indexed=True, value_fd=True, map_of_maps=True, value_sizes=_U32),
    MapKind("hash_of_maps", hashed=True, value_fd=True, map_of_maps=True, value_sizes=_U32),
    MapKind("devmap", indexed=True, value_sizes=_FD_AND_MORE),
    MapKind("sockmap", indexed=True, value_fd=True, value_sizes=_FD_AND_MORE),
    MapKind("cpumap", indexed=True, value_sizes=_FD_AND_MORE),
    MapKind("xskmap", indexed=True, value_fd=True, value_sizes=_U32),
    MapKind("sockhash", hashed=True, value_fd=True, value_sizes=_FD_AND_MORE),
    MapKind("cgroup_storage", key_sizes=(8, 16), entries="zero"),
    MapKind("reuseport_sockarray", indexed=True, value_fd=True, value_sizes=_FD_AND_MORE),
    MapKind("percpu_cgroup_storage", per_cpu=True, key_sizes=(8, 16), entries="zero"),
    MapKind("queue", keyless=True, queue=True),
    MapKind("stack", keyless=True, queue=True),
    MapKind("sk_storage", key_fd=True, key_sizes=_U32, entries="zero", flags=_NO_PREALLOC),
    MapKind("devmap_hash", hashed=True, key_sizes=_U32, value_sizes=_FD_AND_MORE),
    MapKind("struct_ops", indexed=True),
    MapKind("ringbuf", events=True, key_sizes=_NONE, value_sizes=_NONE, entries="pages"),
    MapKind("inode_storage", key_fd=True, key_sizes=_U32, entries="zero", flags=_NO_PREALLOC),
    MapKind("task_storage", key_fd=True, key_sizes=_U32, entries="zero", flags=_NO_PREALLOC),
    MapKind("bloom_filter", keyless=True),
    MapKind("user_ringbuf", key_sizes=_NONE, value_sizes=_NONE, entries="pages"),
    MapKind("cgrp_storage", key_fd=True, key_sizes=_U32, entries="zero", flags=_NO_PREALLOC),
    MapKind("arena", key_sizes=_NONE, value_sizes=_NONE, flags=MapFlags.MMAPABLE),
)

MAPS = {row.name: row for row in _ROWS}
"""The rows by name, in the order of ``enum bpf_map_type``."""

UNKNOWN_MAP = MapKind("")
"""Stands for a kind that is newer than this table: plain keys, plain values."""


def map_kind(name: str) -> MapKind:
    """Return the row of a map type; `UNKNOWN_MAP` for one that is not in the table."""
    return MAPS.get(name, UNKNOWN_MAP)


def maps_with(attribute: str) -> frozenset[str]:
    """Return the names of the kinds of map for which ``attribute`` is true."""
    return frozenset(name for name, row in MAPS.items() if getattr(row, attribute))


PER_CPU = maps_with("per_cpu")
INDEXED = maps_with("indexed")
HASHED = maps_with("hashed")
KEYLESS = maps_with("keyless")
STARTS_FULL = frozenset({"array", "percpu_array"})
"""Kinds that have all elements from the start."""
KEYED_BY_DESCRIPTOR = maps_with("key_fd")
VALUED_BY_DESCRIPTOR = maps_with("value_fd")
MAPS_OF_MAPS = maps_with("map_of_maps")
QUEUES = maps_with("queue")
EVENT_MAPS = maps_with("events")
FOR_EACH = maps_with("for_each")
TIMED = maps_with("timed")

"""Memory of a map, also where the kernel's own figure is none.

Since 6.2 the kernel adds up what a map allocated. Before, ``memlock`` is entries times sizes,
whatever the type: a hash map takes five times as much, a ring buffer is given as nothing. There the
same sum is made here, with the sizes of the kernel's structures from its BTF, type by type as
``kernel/bpf/*.c`` allocates them.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_bpf.errors import UnavailableError, UnknownNameError
from pytest_bpf.kernel import btf, elements
from pytest_bpf.kernel.running import kernel_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects import Map

TOLD_SINCE = (6, 2, 0)
"""The kernel version from which ``memlock`` is what was allocated."""

NO_PREALLOC, NO_COMMON_LRU, MMAPABLE = 1 << 0, 1 << 1, 1 << 10
"""Flags of ``BPF_MAP_CREATE``."""

RING_PAGES = 3
"""Pages of a ring buffer before its data: its own, the consumer's and the producer's position."""

LOCK_BYTES = 32
"""``map_locked`` of a hash map, for each CPU: 8 counters of 4 bytes."""


@dataclass(frozen=True)
class MapMemory:
    """Memory of one map in bytes: ``kernel``, by its own figure or by ``formula``, and ``user``.

    ``user`` is what a reader of events of this process allocated for it: a perf buffer's rings are
    in no figure of the kernel's. A ring buffer's reader maps the kernel's memory and adds nothing.
    """

    kernel: int
    user: int
    by: Literal["kernel", "formula"]

    @property
    def total(self) -> int:
        """Both together."""
        return self.kernel + self.user


def map_memory(of: Map) -> MapMemory:
    """Return what a map takes now.

    Raises `UnavailableError` where neither the kernel nor a formula tells.
    """
    user = of.reader.memory if of.reader else 0
    if kernel_version() >= TOLD_SINCE:
        return MapMemory(of.memlock, user, "kernel")
    return MapMemory(by_formula(of), user, "formula")


def by_formula(of: Map) -> int:
    """Return the bytes that the kernel allocates for a map, by its type.

    Raises `UnavailableError` for types without a formula, and without BTF.
    """
    if of.type not in _FORMULAS:
        raise UnavailableError(f"the memory of a {of.type} is not told before Linux 6.2")
    return _FORMULAS[of.type](of)


def _array(of: Map) -> int:
    data = of.max_entries * _round(of.value_size)
    if of.flags & MMAPABLE:
        return _round(data, mmap.PAGESIZE) + _round(_size("bpf_array"), mmap.PAGESIZE)
    return _size("bpf_array") + data


def _per_cpu_array(of: Map) -> int:
    return _size("bpf_array") + of.max_entries * (8 + _round(of.value_size) * _cpus())


def _pointers(struct: str) -> Callable[[Map], int]:
    """Maps that hold a pointer an entry, and nothing else."""
    return lambda of: _size(struct) + of.max_entries * 8


def _hash(of: Map) -> int:
    cpus, lru, per_cpu = _cpus(), of.type.startswith("lru"), of.per_cpu
    buckets = _power(of.max_entries) * _size("bucket")
    element = _size("htab_elem") + _round(of.key_size) + (8 if per_cpu else _round(of.value_size))
    values = _round(of.value_size) * cpus if per_cpu else 0
    fixed = _size("bpf_htab") + buckets + LOCK_BYTES * cpus
    if of.flags & NO_PREALLOC:
        return fixed + sum(1 for _ in of) * (element + 8 + (values + 16 if per_cpu else 0))
    entries = of.max_entries
    if lru and of.flags & NO_COMMON_LRU:
        entries = _round(entries, cpus)
    if of.type == "hash":
        entries += cpus
    spare = 0 if lru or per_cpu else 8 * cpus
    return fixed + entries * (element + values) + spare


def _trie(of: Map) -> int:
    node = _size("lpm_trie_node") + (of.key_size - 4) + of.value_size
    return _size("lpm_trie") + sum(1 for _ in of) * node


def _queue(of: Map) -> int:
    return _size("bpf_queue_stack") + (of.max_entries + 1) * of.value_size


def _bloom(of: Map) -> int:
    hashes = of.info.map_extra & 0xF or 5
    bits = max(64, _power(of.max_entries * hashes * 7 // 5))
    return _size("bpf_bloom_filter") + bits // 8


def _ring(of: Map) -> int:
    data = of.max_entries // mmap.PAGESIZE
    pages = RING_PAGES + data
    return _size("bpf_ringbuf_map") + pages * mmap.PAGESIZE + (RING_PAGES + 2 * data) * 8


def _stacks(of: Map) -> int:
    element = _size("stack_map_bucket") + of.value_size
    return _size("bpf_stack_map") + _power(of.max_entries) * 8 + of.max_entries * element


def _device_hash(of: Map) -> int:
    present = sum(1 for _ in of) * _size("bpf_dtab_netdev")
    return _size("bpf_dtab") + _power(of.max_entries) * 8 + present


_FORMULAS: dict[str, Callable[[Map], int]] = {
    "array": _array,
    "percpu_array": _per_cpu_array,
    **dict.fromkeys(
        ("prog_array", "perf_event_array", "cgroup_array", "array_of_maps"), _pointers("bpf_array")
    ),
    **dict.fromkeys(("hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "hash_of_maps"), _hash),
    "lpm_trie": _trie,
    **dict.fromkeys(("queue", "stack"), _queue),
    "bloom_filter": _bloom,
    **dict.fromkeys(("ringbuf", "user_ringbuf"), _ring),
    "stack_trace": _stacks,
    "devmap": _pointers("bpf_dtab"),
    "devmap_hash": _device_hash,
    "cpumap": _pointers("bpf_cpu_map"),
    "xskmap": _pointers("xsk_map"),
    "sockmap": _pointers("bpf_stab"),
}


def _size(struct: str) -> int:
    try:
        return btf.vmlinux().named(f"struct {struct}").size
    except UnknownNameError:
        raise UnavailableError(f"this kernel's BTF has no struct {struct}") from None


def _cpus() -> int:
    return elements.possible_cpus()


def _round(size: int, to: int = 8) -> int:
    return (size + to - 1) // to * to


def _power(entries: int) -> int:
    """Return the power of two that is no less."""
    return 1 << max(0, entries - 1).bit_length()

"""How much memory the kernel allocates for a map, type by type as ``kernel/bpf/*.c`` does it."""

from __future__ import annotations

import errno
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError, UnavailableError, with_article
from pytest_bpf.kernel.btf.offsets import kernel_struct
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.sys.exact import is_machine
from pytest_bpf.kernel.sys.memory import available_memory
from pytest_bpf.kinds.flags import MapFlags
from pytest_bpf.kinds.maps import PER_CPU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RING_PAGES = 3
"""Pages of a ring buffer before its data: its own, the consumer's and the producer's position."""

LOCK_BYTES = 32
"""``map_locked`` of a hash map, for each CPU: 8 counters of 4 bytes."""

SMALL = 16 << 20
"""Bytes of maps that are not worth asking how much memory is free."""

OR_MORE = ", or give the machine more memory (--bpf-memory, --bpf-memory-max)"

MOST_PER_CPU = 2**31 - 1
"""Entries of a per-CPU array that the kernel counts without an overflow."""


@dataclass(frozen=True)
class MapSpec:
    """What a map is created with; ``type`` is libbpf's name, sizes are in bytes."""

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    extra: int = 0

    def __str__(self) -> str:
        sizes = f"max_entries {self.max_entries}, value_size {self.value_size}"
        return f"map {self.name!r} ({self.type}, {sizes})"


def allocation(spec: MapSpec, count: int = 0) -> int:
    """Return the bytes that the kernel allocates for a map with ``count`` elements.

    The number counts only where elements are allocated one by one. Raises `UnavailableError` for
    types without a formula, and without BTF.
    """
    if spec.type not in _FORMULAS:
        raise UnavailableError(f"there is no formula for the memory of {with_article(spec.type)}")
    return _FORMULAS[spec.type](spec, count)


def check_memory(where: str, maps: Iterable[MapSpec]) -> None:
    """Raise `LoadError` for maps that take more memory than there is, before they are created."""
    specs = list(maps)
    for spec in specs:
        if spec.type == "percpu_array" and spec.max_entries > MOST_PER_CPU:
            raise LoadError(
                f"{where}: {spec}: kernels crash on per-CPU arrays of more than {MOST_PER_CPU} "
                "entries; set a smaller max_entries"
            )
    if sum(map(_least, specs)) < SMALL:
        return
    sizes = {spec: _estimate(spec) for spec in specs}
    need, have = sum(sizes.values()), available_memory()
    if need > have:
        largest = max(specs, key=lambda spec: sizes[spec])
        raise LoadError(
            f"{where}: its maps would take {need / 1e9:.1f} GB and {have / 1e9:.1f} GB of memory "
            f"are available; the largest is {largest} with {sizes[largest] / 1e9:.1f} GB; set a "
            f"smaller max_entries{OR_MORE * is_machine()}",
            errno.ENOMEM,
            need - have,
        )


def _least(spec: MapSpec) -> int:
    """Return no more than a map takes, without asking for the sizes of the kernel's structs."""
    if spec.flags & MapFlags.NO_PREALLOC or spec.type == "lpm_trie":
        return 8 * spec.max_entries if spec.type != "lpm_trie" else 0
    if spec.type in {"ringbuf", "user_ringbuf"}:
        return spec.max_entries
    cpus = elements.possible_cpus() if spec.type in PER_CPU else 1
    return spec.max_entries * (_round(spec.key_size) + _round(spec.value_size) * cpus)


def _estimate(spec: MapSpec) -> int:
    try:
        return allocation(spec)
    except UnavailableError:
        return _least(spec)


def _array(spec: MapSpec, _: int) -> int:
    data = spec.max_entries * _round(spec.value_size)
    if spec.flags & MapFlags.MMAPABLE:
        return _round(data, mmap.PAGESIZE) + _round(_size("bpf_array"), mmap.PAGESIZE)
    return _size("bpf_array") + data


def _per_cpu_array(spec: MapSpec, _: int) -> int:
    entry = 8 + _round(spec.value_size) * elements.possible_cpus()
    return _size("bpf_array") + spec.max_entries * entry


def _pointers(struct: str) -> Callable[[MapSpec, int], int]:
    """Maps that hold a pointer an entry, and nothing else."""
    return lambda spec, _: _size(struct) + spec.max_entries * 8


def _hash(spec: MapSpec, count: int) -> int:
    cpus, lru = elements.possible_cpus(), spec.type.startswith("lru")
    per_cpu = spec.type in PER_CPU
    buckets = _power(spec.max_entries) * _size("bucket")
    own_value = 8 if per_cpu else _round(spec.value_size)
    element = _size("htab_elem") + _round(spec.key_size) + own_value
    values = _round(spec.value_size) * cpus if per_cpu else 0
    fixed = _size("bpf_htab") + buckets + LOCK_BYTES * cpus
    if spec.flags & MapFlags.NO_PREALLOC:
        return fixed + count * (element + 8 + (values + 16 if per_cpu else 0))
    entries = spec.max_entries
    if lru and spec.flags & MapFlags.NO_COMMON_LRU:
        entries = _round(entries, cpus)
    if spec.type == "hash":
        entries += cpus
    spare = 0 if lru or per_cpu else 8 * cpus
    return fixed + entries * (element + values) + spare


def _trie(spec: MapSpec, count: int) -> int:
    node = _size("lpm_trie_node") + (spec.key_size - 4) + spec.value_size
    return _size("lpm_trie") + count * node


def _queue(spec: MapSpec, _: int) -> int:
    return _size("bpf_queue_stack") + (spec.max_entries + 1) * spec.value_size


def _bloom(spec: MapSpec, _: int) -> int:
    hashes = spec.extra & 0xF or 5
    bits = max(64, _power(spec.max_entries * hashes * 7 // 5))
    return _size("bpf_bloom_filter") + bits // 8


def _ring(spec: MapSpec, _: int) -> int:
    data = spec.max_entries // mmap.PAGESIZE
    pages = RING_PAGES + data
    return _size("bpf_ringbuf_map") + pages * mmap.PAGESIZE + (RING_PAGES + 2 * data) * 8


def _stacks(spec: MapSpec, _: int) -> int:
    element = _size("stack_map_bucket") + spec.value_size
    return _size("bpf_stack_map") + _power(spec.max_entries) * 8 + spec.max_entries * element


def _device_hash(spec: MapSpec, count: int) -> int:
    return _size("bpf_dtab") + _power(spec.max_entries) * 8 + count * _size("bpf_dtab_netdev")


_FORMULAS: dict[str, Callable[[MapSpec, int], int]] = {
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
    return kernel_struct(struct).size


def _round(size: int, to: int = 8) -> int:
    return (size + to - 1) // to * to


def _power(entries: int) -> int:
    """Return the power of two that is no less."""
    return 1 << max(0, entries - 1).bit_length()

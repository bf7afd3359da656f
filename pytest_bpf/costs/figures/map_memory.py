"""Memory of a map, also where the kernel's own figure is none.

Since 6.2 the kernel adds up what a map allocated. Before, ``memlock`` is entries times sizes,
whatever the type: a hash map takes five times as much, a ring buffer is given as nothing. There the
same sum is made by `pytest_bpf.kernel.maps.memory`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_bpf.kernel.maps.memory import MapSpec, allocation
from pytest_bpf.kernel.sys.release import kernel_version
from pytest_bpf.kinds.flags import MapFlags

if TYPE_CHECKING:
    from pytest_bpf.objects import Map

ALLOCATED_SINCE = (6, 2, 0)
"""The kernel version from which ``memlock`` is what was allocated."""

COUNTED = frozenset({"lpm_trie", "devmap_hash"})
"""Kinds of map whose elements are allocated one by one."""


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


def map_memory(bpf_map: Map) -> MapMemory:
    """Return what a map takes now.

    Raises `UnavailableError` where neither the kernel nor a formula tells.
    """
    user = bpf_map.reader.memory if bpf_map.reader else 0
    if kernel_version() >= ALLOCATED_SINCE:
        return MapMemory(bpf_map.memlock, user, "kernel")
    return MapMemory(by_formula(bpf_map), user, "formula")


def by_formula(bpf_map: Map) -> int:
    """Return the bytes that the kernel allocates for a map, by its type.

    Raises `UnavailableError` for types without a formula, and without BTF.
    """
    info = bpf_map.info
    spec = MapSpec(
        bpf_map.name,
        bpf_map.type,
        bpf_map.key_size,
        bpf_map.value_size,
        bpf_map.max_entries,
        bpf_map.flags,
        info.map_extra,
    )
    counts = bpf_map.flags & MapFlags.NO_PREALLOC or bpf_map.type in COUNTED
    return allocation(spec, sum(1 for _ in bpf_map) if counts else 0)

"""Why the kernel refused to create a map or to do something with it: one table, one sentence each.

The first row that fits the kind of map, what was done and the error code says what is wrong.
"""

from __future__ import annotations

import errno
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import with_article
from pytest_bpf.kernel.maps.batches import LACKING
from pytest_bpf.kernel.maps.memory import OR_MORE
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.exact import is_machine
from pytest_bpf.kinds.flags import MapFlags
from pytest_bpf.kinds.maps import INDEXED, MAPS_OF_MAPS, map_kind, maps_with

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_bpf.kinds.maps import MapKind

_SOCKETS = frozenset({"sockmap", "sockhash", "reuseport_sockarray", "xskmap"})
_DEVICES = frozenset({"devmap", "devmap_hash"})
_CPUS = frozenset({"cpumap"})
_STORAGES = maps_with("key_fd") | {"cgroup_storage", "percpu_cgroup_storage"}
_ALL: frozenset[str] = frozenset()

LARGEST_KEY = 512
"""Bytes of the largest key of a map (``MAX_BPF_STACK``)."""

LARGEST_PER_CPU = 32768
"""Bytes of the largest value of a per-CPU map (``PCPU_MIN_UNIT_SIZE``)."""

LARGEST_QUEUE = 16384
"""Elements of the longest queue of a cpumap."""

LARGEST_TRIE_KEY = 4 + 256
"""Bytes of the largest key of an LPM trie, with its prefix length."""


@dataclass(frozen=True)
class Refusal:
    """What ``codes`` mean for some kinds of maps and actions; none of them means all."""

    sentence: str
    codes: Collection[int]
    kinds: Collection[str] = _ALL
    actions: Collection[str] = _ALL

    def fits(self, kind: str, action: str, code: int) -> bool:
        """Say whether the row is about this."""
        return (
            code in self.codes
            and (not self.kinds or kind in self.kinds)
            and (not self.actions or action in self.actions)
        )


_READ = {"look-up", "look-up with lock", "reading", "peek"}
_WRITE = {"update", "update with lock", "set"}
_DELETE = {"deletion", "deleted", "clearing"}

TABLE = (
    Refusal(
        "lock=True takes a value with a struct bpf_spin_lock in it (BPF_F_LOCK)",
        {errno.EINVAL},
        actions={"look-up with lock", "update with lock"},
    ),
    Refusal("the index is past the end, max_entries is {max_entries}", {errno.E2BIG}, INDEXED),
    Refusal(
        "its sockets are shown as cookies, which takes values of 8 bytes: "
        "declare __type(value, __u64)",
        {errno.ENOSPC},
        _SOCKETS,
        _READ,
    ),
    Refusal(
        "that socket is of a kind or in a state that it does not take",
        {errno.EOPNOTSUPP},
        _SOCKETS,
        _WRITE,
    ),
    Refusal("the value is no socket", {errno.ENOTSOCK}, _SOCKETS, _WRITE),
    Refusal("there is no socket at that key", {errno.EINVAL}, {"sockmap"}, _DELETE),
    Refusal(
        "it takes sockets of UDP and TCP with SO_REUSEPORT that are bound or listen, and no flag "
        "but 'any' (EINVAL)",
        {errno.EINVAL},
        {"reuseport_sockarray"},
        _WRITE,
    ),
    Refusal(
        "there is no such interface in the network namespace of the caller (EINVAL); "
        "give an Interface, which is looked up in its own",
        {errno.EINVAL},
        _DEVICES,
        _WRITE,
    ),
    Refusal("the key is a CPU, and there is no such CPU (ENODEV)", {errno.ENODEV}, _CPUS, _WRITE),
    Refusal(
        f"a queue of a CPU has at most {LARGEST_QUEUE} elements (EOVERFLOW)",
        {errno.EOVERFLOW},
        _CPUS,
        _WRITE,
    ),
    Refusal(
        "a value is a descriptor of the right kind, and that is none (EBADF)",
        {errno.EBADF},
        maps_with("value_fd") | _DEVICES | {"cpumap"},
        _WRITE,
    ),
    Refusal(
        "{a_kind} takes no flag but 'any', and a map like its inner map (EINVAL)",
        {errno.EINVAL},
        maps_with("map_of_maps"),
        _WRITE,
    ),
    Refusal(
        "{a_kind} takes no flag but 'any', and a program of the same kind as those that use it "
        "(EINVAL)",
        {errno.EINVAL},
        {"prog_array"},
        _WRITE,
    ),
    Refusal(
        "the prefix is longer than the key has bits, or the key is not there and the flag is "
        "'exist' (EINVAL)",
        {errno.EINVAL},
        {"lpm_trie"},
        _WRITE,
    ),
    Refusal("only programs write to a stack_trace", {errno.EINVAL}, {"stack_trace"}, _WRITE),
    Refusal(
        "the elements of {a_kind} cannot be deleted; set them to zero",
        {errno.EINVAL},
        {"array", "percpu_array"},
        _DELETE,
    ),
    Refusal(
        "{a_kind} takes no flag but 'any' (EINVAL)",
        {errno.EINVAL},
        maps_with("value_fd") | maps_with("keyless"),
        _WRITE,
    ),
    Refusal("there is nothing stored for that key (ENOENT)", {errno.ENOENT}, _STORAGES),
    Refusal("the map is full: max_entries is {max_entries} ({name})", {errno.E2BIG, errno.ENOSPC}),
    Refusal("the map is busy on this CPU, try again (EBUSY)", {errno.EBUSY}),
    Refusal("the key exists already and the flag is 'noexist' (EEXIST)", {errno.EEXIST}),
    Refusal(
        "the kernel forbids it for this map: it is frozen or read-only (EPERM)",
        {errno.EPERM},
    ),
    Refusal("{a_kind} does not do that from user space ({reason})", LACKING),
)


def explain(code: int, kind: str, action: str, max_entries: int) -> str:
    """Return what an error code means for a kind of map and what was done with it."""
    for row in TABLE:
        if row.fits(kind, action, code):
            return row.sentence.format(
                a_kind=with_article(kind),
                max_entries=max_entries,
                name=libbpf.error_name(code),
                reason=libbpf.reason(code),
            )
    return libbpf.reason(code)


@dataclass(frozen=True)
class Sizes:
    """What a map is created with: sizes in bytes, and ``BPF_F_*`` flags."""

    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


def explain_creation(code: int, kind: str, sizes: Sizes) -> str:
    """Return why a map could not be created, from what its kind asks for."""
    if code == errno.ENOMEM:
        return (
            f"the kernel does not have the memory for {sizes.max_entries} elements of "
            f"{sizes.key_size + sizes.value_size} bytes (ENOMEM){OR_MORE * is_machine()}"
        )
    if code == errno.EINVAL and kind.isdecimal():
        return f"there is no kind of map with the number {kind} in this kernel (EINVAL)"
    problem = creation_problem(map_kind(kind), sizes) if code in {errno.EINVAL, errno.E2BIG} else ""
    if code == errno.EINVAL and kind in MAPS_OF_MAPS and not problem and not sizes.flags:
        return "what it holds is not declared: __array(values, struct { ... }) (EINVAL)"
    more = sizes.flags & ~map_kind(kind).flags
    flags = (
        f"; do its flags, {more:#x}, go with this kind?" if code == errno.EINVAL and more else ""
    )
    return problem or f"{libbpf.reason(code)}{flags}"


def creation_problem(row: MapKind, sizes: Sizes) -> str:
    """Return what of the sizes and flags a kind of map does not take; empty when all is well."""
    a_kind = with_article(row.name)
    keys = row.key_sizes or ((4,) if row.indexed else (0,) if row.keyless else ())
    if wrong := _wrong_size("key_size", sizes.key_size, keys):
        return f"{a_kind} takes {wrong}"
    if wrong := _wrong_size("value_size", sizes.value_size, row.value_sizes):
        return f"{a_kind} takes {wrong}"
    if missing := row.flags & ~sizes.flags:
        return f"{a_kind} needs the flag BPF_F_{MapFlags(missing).name}"
    entries, page = sizes.max_entries, mmap.PAGESIZE
    if row.entries == "zero" and entries:
        return f"{a_kind} takes max_entries 0, not {entries}: it grows as it needs"
    if row.entries != "zero" and not entries:
        return "max_entries is 0, and it must be at least 1"
    if row.entries == "pages" and (entries % page or entries & (entries - 1)):
        return (
            f"max_entries of {a_kind} are bytes, a power of two and at least {page}, not {entries}"
        )
    if row.name == "lpm_trie" and not 4 < sizes.key_size <= LARGEST_TRIE_KEY:
        return f"an lpm_trie takes keys of 5 to {LARGEST_TRIE_KEY} bytes, not {sizes.key_size}"
    if row.name == "stack_trace" and sizes.value_size % 8:
        return f"a stack_trace takes values of whole addresses of 8 bytes, not {sizes.value_size}"
    if row.name == "stack_trace" and sizes.value_size > (most := _longest_stack()):
        return (
            f"a stack_trace takes values of at most {most} bytes, not {sizes.value_size}: 8 times "
            "the sysctl kernel.perf_event_max_stack"
        )
    if row.per_cpu and sizes.value_size > LARGEST_PER_CPU:
        return (
            f"{a_kind} takes values of at most {LARGEST_PER_CPU} bytes for each CPU, "
            f"not {sizes.value_size}"
        )
    if row.hashed and sizes.key_size > LARGEST_KEY:
        return f"{a_kind} takes keys of at most {LARGEST_KEY} bytes, not {sizes.key_size}"
    return ""


def _longest_stack() -> int:
    """Return the most bytes of a stack that the kernel records."""
    try:
        return 8 * int(Path("/proc/sys/kernel/perf_event_max_stack").read_text())
    except (OSError, ValueError):
        return 1 << 32


def _wrong_size(name: str, size: int, allowed: tuple[int, ...]) -> str:
    if (allowed and size in allowed) or (not allowed and size > 0):
        return ""
    takes = " or ".join(map(str, allowed)) if allowed else "at least 1"
    return f"{name} {takes}, not {size} (bytes)"

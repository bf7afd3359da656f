"""The kernel's numbers by the names the field uses: program types, map types, helpers.

Names are libbpf's (``libbpf_bpf_prog_type_str``): ``xdp`` is ``BPF_PROG_TYPE_XDP``. The enums of
``uapi/linux/bpf.h`` only ever grow at the end, so that a name's place is its number; what a newer
kernel has added is read from its BTF.
"""

from __future__ import annotations

from functools import cache

from pytest_bpf.errors import UnavailableError, UnknownNameError, near_matches
from pytest_bpf.kernel import btf
from pytest_bpf.kernel.sys import libbpf

PROGRAM_TYPES = (
    "unspec",
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
)
"""``enum bpf_prog_type``."""

MAP_TYPES = (
    "unspec",
    "hash",
    "array",
    "prog_array",
    "perf_event_array",
    "percpu_hash",
    "percpu_array",
    "stack_trace",
    "cgroup_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "array_of_maps",
    "hash_of_maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup_storage",
    "reuseport_sockarray",
    "percpu_cgroup_storage",
    "queue",
    "stack",
    "sk_storage",
    "devmap_hash",
    "struct_ops",
    "ringbuf",
    "inode_storage",
    "task_storage",
    "bloom_filter",
    "user_ringbuf",
    "cgrp_storage",
    "arena",
)
"""``enum bpf_map_type``."""


def program_type_id(name: str) -> int:
    """Return the number of a program type; raises `UnknownNameError` with the near matches."""
    return _id(name, "program type", PROGRAM_TYPES, "enum bpf_prog_type", "BPF_PROG_TYPE_")


def map_type_id(name: str) -> int:
    """Return the number of a map type; raises `UnknownNameError` with the near matches."""
    return _id(name, "map type", MAP_TYPES, "enum bpf_map_type", "BPF_MAP_TYPE_")


def _id(name: str, kind: str, names: tuple[str, ...], enum: str, prefix: str) -> int:
    if name in names[1:]:
        return names.index(name)
    newer = {n: value for n, value in kernel_enum(enum, prefix).items() if value >= len(names)}
    if name not in newer:
        hint = near_matches(name, [*names[1:], *newer])
        raise UnknownNameError(f"there is no {kind} {name!r}{hint}")
    return newer[name]


@cache
def kernel_enum(enum: str, prefix: str) -> dict[str, int]:
    """Return the running kernel's enumerators by name, lower case, without ``prefix``.

    Empty when the kernel has no BTF.

    >>> kernel_enum("enum bpf_func_id", "BPF_FUNC_")["ringbuf_output"]
    130
    """
    try:
        members = btf.vmlinux().find(enum)
    except (UnavailableError, UnknownNameError):
        return {}
    assert isinstance(members, btf.Enumeration)
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in members.members
        if name.startswith(prefix) and not name.lower().endswith("_unspec")
    }


def program_type_name(number: int) -> str:
    """Return libbpf's name of ``enum bpf_prog_type``; the number where no libbpf has one."""
    return PROGRAM_TYPES[number] if number < len(PROGRAM_TYPES) else str(number)


def map_type_name(number: int) -> str:
    """Return libbpf's name of ``enum bpf_map_type``; the number where it has none."""
    if 0 <= number < len(MAP_TYPES):
        return MAP_TYPES[number]
    name = libbpf.function("libbpf_bpf_map_type_str")(number)
    return name.decode() if name else str(number)

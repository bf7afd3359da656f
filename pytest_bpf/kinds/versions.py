"""The kernel version that each kind of map and program first appeared in.

What a distribution took over earlier is not in these tables: probes ask the kernel itself.
"""

from __future__ import annotations

MAP_KINDS = {
    **dict.fromkeys(("hash", "array"), "3.19"),
    "prog_array": "4.2",
    "perf_event_array": "4.3",
    **dict.fromkeys(("percpu_hash", "percpu_array", "stack_trace"), "4.6"),
    "cgroup_array": "4.8",
    **dict.fromkeys(("lru_hash", "lru_percpu_hash"), "4.10"),
    "lpm_trie": "4.11",
    **dict.fromkeys(("array_of_maps", "hash_of_maps"), "4.12"),
    **dict.fromkeys(("devmap", "sockmap"), "4.14"),
    "cpumap": "4.15",
    **dict.fromkeys(("xskmap", "sockhash"), "4.18"),
    **dict.fromkeys(("cgroup_storage", "reuseport_sockarray"), "4.19"),
    **dict.fromkeys(("percpu_cgroup_storage", "queue", "stack"), "4.20"),
    "sk_storage": "5.2",
    "devmap_hash": "5.4",
    "struct_ops": "5.6",
    "ringbuf": "5.8",
    "inode_storage": "5.10",
    "task_storage": "5.11",
    "bloom_filter": "5.16",
    "user_ringbuf": "6.1",
    "cgrp_storage": "6.2",
    "arena": "6.9",
}

PROGRAM_KINDS = {
    "socket_filter": "3.19",
    **dict.fromkeys(("kprobe", "sched_cls", "sched_act"), "4.1"),
    "tracepoint": "4.7",
    "xdp": "4.8",
    "perf_event": "4.9",
    **dict.fromkeys(("cgroup_skb", "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit"), "4.10"),
    "sock_ops": "4.13",
    "sk_skb": "4.14",
    "cgroup_device": "4.15",
    **dict.fromkeys(("sk_msg", "raw_tracepoint", "cgroup_sock_addr"), "4.17"),
    **dict.fromkeys(("lwt_seg6local", "lirc_mode2"), "4.18"),
    "sk_reuseport": "4.19",
    "flow_dissector": "4.20",
    **dict.fromkeys(("cgroup_sysctl", "raw_tracepoint_writable"), "5.2"),
    "cgroup_sockopt": "5.3",
    "tracing": "5.5",
    **dict.fromkeys(("struct_ops", "ext"), "5.6"),
    "lsm": "5.7",
    "sk_lookup": "5.9",
    "syscall": "5.14",
    "netfilter": "6.4",
}


def since(versions: dict[str, str], name: str) -> str:
    """Return the words to add to a kind that a kernel lacks; empty when no version is known.

    >>> since(MAP_KINDS, "arena"), since(MAP_KINDS, "newest")
    (', which Linux has since 6.9', '')
    """
    return f", which Linux has since {versions[name]}" if name in versions else ""

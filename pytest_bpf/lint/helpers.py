"""The helpers that rules know, by their numbers in ``uapi/linux/bpf.h``."""

from __future__ import annotations

MAP_LOOKUP, MAP_UPDATE, MAP_DELETE = 1, 2, 3
PROBE_READ, KTIME, TAIL_CALL, PID_TGID, UID_GID, COMM = 4, 5, 12, 14, 15, 16
PERF_OUTPUT, PROBE_READ_STR = 25, 45
RINGBUF_OUTPUT, RINGBUF_RESERVE, RINGBUF_SUBMIT, RINGBUF_DISCARD = 130, 131, 132, 133

KEYED = frozenset(
    {"hash", "lru_hash", "percpu_hash", "lru_percpu_hash", "array", "percpu_array", "lpm_trie"}
)
INDEXED = frozenset({"array", "percpu_array"})
"""Kinds of maps that are looked up by key, and those whose look-up costs almost nothing."""

READS = {
    4: "bpf_probe_read",
    45: "bpf_probe_read_str",
    112: "bpf_probe_read_user",
    113: "bpf_probe_read_kernel",
    114: "bpf_probe_read_user_str",
    115: "bpf_probe_read_kernel_str",
    148: "bpf_copy_from_user",
}
"""What reads memory of the kernel or of a process: destination, size, source."""

STRINGS = {
    "bpf_probe_read": "bpf_probe_read_str",
    "bpf_probe_read_user": "bpf_probe_read_user_str",
    "bpf_probe_read_kernel": "bpf_probe_read_kernel_str",
}
"""What reads a string in one call, in place of reading it byte by byte."""

CHEAP = frozenset({5, 7, 8, 14, 15, 16, 35, 42, 80, 125, 158})
"""Helpers that cost almost nothing: time, CPU, the task's ids, its name."""

COSTLY = {27: "a stack", 67: "a stack", **dict.fromkeys(READS, "a read of memory")}
"""What a program should not do before it knows that it wants the event, and changes nothing.

A look-up is none of these: whether there is a key is a filter itself.
"""

OUTPUTS = {
    PERF_OUTPUT: "bpf_perf_event_output",
    RINGBUF_OUTPUT: "bpf_ringbuf_output",
    RINGBUF_RESERVE: "bpf_ringbuf_reserve",
}
"""What sends an event to user space."""

FILLS = {COMM: 0, **dict.fromkeys(READS, 0), 67: 1, 26: 2}
"""Which argument is the buffer that a helper fills; the one after it is its size."""

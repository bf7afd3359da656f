"""Two writers and one reader as fast as they can, with every event checked: numbers, bytes, sums.

An event that finds no room is put out again, so that none may be missing; each writer's numbers
must come one after the other, and each event's words and their sum must be those of its number.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.kernel.sys.perf_event import online_cpus

if TYPE_CHECKING:
    from pytest_bpf.objects import EventArray, Object

WRITERS = 2
AT_ONCE = 2000
"""How many events a writer puts out in one run."""

FULL = 0.001
"""Seconds that it leaves the reader when there is no room."""

MIX = np.uint64(0x9E3779B97F4A7C15)

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct event { __u32 writer, words; __u64 n, sum, payload[]; };
struct full { __u32 writer, words; __u64 n, sum, payload[5]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 22); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
         __uint(key_size, 4); __uint(value_size, 4); } perf SEC(".maps");
struct event *unused;
struct stress_writer { __u64 next, full, discarded; } writers[2];
struct full room[2];

static __always_inline void fill(struct event *e, __u64 *payload, __u32 w, __u64 n, int words) {
    __u64 sum = n;
    e->writer = w; e->words = words; e->n = n;
    for (int i = 0; i < words; i++) {
        __u64 x = (n << 4) + i;
        payload[i] = (x ^ x >> 29) * 0x9E3779B97F4A7C15;
        sum ^= payload[i];
    }
    for (int i = 0; i < 300; i++) *(volatile __u64 *)payload; /* long enough to be seen half done */
    e->sum = sum;
}
#define TO_RING(words) ({ \\
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof(*e) + 8 * words, 0); \\
    if (e) { fill(e, (void *)(e + 1), w, n, words); bpf_ringbuf_submit(e, 0); } \\
    !e; })
static long to_ring(__u64 i, void *ctx) {
    __u32 w = *(__u64 *)ctx & 1;
    __u64 n = writers[w].next, kind = n * 0x9E3779B97F4A7C15 >> 56;
    if ((kind & 15) == 0) {
        void *e = bpf_ringbuf_reserve(&ring, 40, 0);
        if (e) { bpf_ringbuf_discard(e, 0); writers[w].discarded++; }
    }
    int full = kind < 64 ? TO_RING(1) : kind < 160 ? TO_RING(2) : TO_RING(5);
    if (full) { writers[w].full++; return 1; }
    writers[w].next = n + 1;
    return 0;
}
#define TO_PERF(words) ({ \\
    fill((struct event *)&room[w], room[w].payload, w, n, words); \\
    bpf_perf_event_output(((void **)ctx)[1], &perf, BPF_F_CURRENT_CPU, &room[w], \\
        sizeof(struct event) + 8 * words); })
static long to_perf(__u64 i, void *ctx) {
    __u32 w = *(__u64 *)ctx & 1;
    __u64 n = writers[w].next, kind = n * 0x9E3779B97F4A7C15 >> 56;
    long full = kind < 64 ? TO_PERF(1) : kind < 160 ? TO_PERF(2) : TO_PERF(5);
    if (full) { writers[w].full++; return 1; }
    writers[w].next = n + 1;
    return 0;
}
SEC("raw_tp") int write_ring(struct bpf_raw_tracepoint_args *ctx) {
    __u64 given[2] = { ctx->args[0], 0 };
    return bpf_loop(ctx->args[1], to_ring, &given, 0);
}
SEC("raw_tp") int write_perf(struct bpf_raw_tracepoint_args *ctx) {
    struct { __u64 w; void *ctx; } given = { ctx->args[0], ctx };
    return bpf_loop(ctx->args[1], to_perf, &given, 0);
}
"""


@dataclass
class Outcome:
    """What was read and checked, and how often a writer found no room or discarded a record."""

    events: int = 0
    batches: int = 0
    full: int = 0
    discarded: int = 0


def stress(obj: Object, kind: str, seconds: float, **options: Any) -> Outcome:
    """Write and read for so long; `AssertionError` for an event lost, repeated, torn or moved.

    ``kind`` is "ring" or "perf", ``options`` are those of `Map.events`.
    """
    reader = obj.maps[kind].events("struct event", **options)
    ended = threading.Event()
    program = obj.programs[f"write_{kind}"]
    before = obj.globals["writers"]
    expected = [writer.next for writer in before]
    done = Outcome(discarded=-reader.discarded)

    def write(number: int) -> None:
        cpus = online_cpus()
        os.sched_setaffinity(0, {cpus[number % len(cpus)]})  # this thread's
        while not ended.is_set():
            if program.test_run(context=(number, AT_ONCE)).retval < AT_ONCE:
                ended.wait(FULL)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            _check(reader.read_array(1, timeout=0.01), expected, done)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    _check(reader.read_array(), expected, done)
    after = obj.globals["writers"]
    written, done.full, discarded = (
        sum(getattr(writer, member) for writer in after)
        - sum(getattr(writer, member) for writer in before)
        for member in ("next", "full", "discarded")
    )
    assert expected == [writer.next for writer in after]
    assert done.events == written
    assert reader.pending == 0
    done.discarded += reader.discarded
    assert done.discarded == discarded
    return done


def _check(found: EventArray, expected: list[int], done: Outcome) -> None:
    """Compare each event with what its writer must have written."""
    if not len(found):
        return
    events = found.array
    numbers, words, payload = events["n"], events["words"], events["payload"]
    total = numbers.copy()
    for place in range(payload.shape[1]):
        mixed = (numbers << np.uint64(4)) + np.uint64(place)
        mixed = (mixed ^ mixed >> np.uint64(29)) * MIX
        own = words > place
        assert (payload[own, place] == mixed[own]).all(), "a torn event: words of another number"
        total[own] ^= mixed[own]
    assert (events["sum"] == total).all(), "a torn sum"
    assert (found.sizes - 24 - 8 * words.astype(np.int64) < 8).all(), "a length that is not its own"
    for number in range(WRITERS):
        own = numbers[events["writer"] == number]
        first = expected[number]
        right = np.arange(first, first + len(own), dtype=np.uint64)
        assert (own == right).all(), f"writer {number}: lost, repeated or moved from {first} on"
        expected[number] += len(own)
    done.events += len(found)
    done.batches += 1

// Maps of every kind that is read in bulk, and events by number.

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct amounts {
    __u64 count;
    __u32 bytes;
};

#define TABLE(name, kind) \
    struct { \
        __uint(type, BPF_MAP_TYPE_##kind); \
        __uint(max_entries, 5000); \
        __type(key, __u32); \
        __type(value, struct amounts); \
    } name SEC(".maps")

TABLE(hash, HASH);
TABLE(lru_hash, LRU_HASH);
TABLE(percpu_hash, PERCPU_HASH);
TABLE(array, ARRAY);
TABLE(percpu_array, PERCPU_ARRAY);

struct event {
    __u64 number;
    __u64 at;
};

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
    __type(value, struct event);
} ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
    __type(key, __u32);
    __type(value, struct event);
} perf SEC(".maps");

__u64 next;
__u64 no_room;

SEC("raw_tp")
int put(void *ctx)
{
    struct event event = {.number = next++, .at = bpf_ktime_get_ns()};

    if (bpf_ringbuf_output(&ring, &event, sizeof(event), 0))
        no_room++;
    bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event));
    return 0;
}

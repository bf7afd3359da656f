// Programs, each with one that does a tenth more of the same, and in exact mode one instruction more.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 only = 0;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __uint(map_flags, 1U << 6); // BPF_F_ZERO_SEED
    __type(key, __u64);
    __type(value, __u64);
} table SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 16);
} events SEC(".maps");

#define UNROLLED _Pragma("clang loop unroll(full)")

static __always_inline void look_up(int count)
{
    UNROLLED for (int i = 0; i < count; i++) {
        __u64 key = 7, *value = bpf_map_lookup_elem(&table, &key);

        if (value)
            *value += 1;
    }
}

static __always_inline void update_it(int count)
{
    UNROLLED for (int i = 0; i < count; i++) {
        __u64 key = 7, value = 1;

        bpf_map_update_elem(&table, &key, &value, BPF_ANY);
    }
}

static __always_inline void write_to_ring(int count)
{
    UNROLLED for (int i = 0; i < count; i++) {
        __u64 *event = bpf_ringbuf_reserve(&events, 16, 0);

        if (event) {
            event[0] = 1;
            bpf_ringbuf_discard(event, BPF_RB_NO_WAKEUP);
        }
    }
}

static __always_inline void multiply(int count)
{
    UNROLLED for (int i = 0; i < count; i++)
        asm volatile("r1 *= 3" ::: "r1");
}

#define TRACED(name, work)                                                                         \
    SEC("tracepoint/syscalls/sys_enter_getpgid") int name(void *ctx)                               \
    {                                                                                              \
        if (bpf_get_current_pid_tgid() >> 32 != only)                                              \
            return 0;                                                                              \
        work;                                                                                      \
        return 0;                                                                                  \
    }
#define WITH_MORE(name, work, count, more)                                                         \
    TRACED(name, work(count))                                                                      \
    TRACED(name##_more, work(more))                                                                \
    TRACED(name##_1, work(count); asm volatile("r0 = 0" ::: "r0"))

WITH_MORE(look, look_up, 30, 34)
WITH_MORE(update, update_it, 10, 11)
WITH_MORE(write, write_to_ring, 30, 34)
WITH_MORE(times, multiply, 400, 440)

// Programs whose cost in instructions is known to the last one.

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
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 22);
} events SEC(".maps");

SEC("kprobe/__x64_sys_getpid") int empty(void *ctx) { return 0; }

SEC("kprobe/__x64_sys_getpid")
int hash_update(void *ctx)
{
    __u64 key = 7, zero = 0, *value = bpf_map_lookup_elem(&table, &key);

    if (value)
        zero = *value + 1;
    bpf_map_update_elem(&table, &key, &zero, BPF_ANY);
    return 0;
}

static __always_inline int per_cpu_body(void)
{
    __u32 zero = 0;
    __u64 *value = bpf_map_lookup_elem(&counts, &zero);

    if (value)
        (*value)++;
    return 0;
}

SEC("tracepoint/syscalls/sys_enter_getpid")
int per_cpu(void *ctx)
{
    return per_cpu_body();
}

SEC("fentry/vfs_statfs")
int per_cpu_fentry(void *ctx)
{
    return per_cpu_body();
}

SEC("fexit/vfs_statfs")
int per_cpu_fexit(void *ctx)
{
    return per_cpu_body();
}

SEC("kprobe/__x64_sys_getpid")
int ring_write(void *ctx)
{
    __u64 event[2] = {1, 2};

    bpf_ringbuf_output(&events, event, sizeof(event), BPF_RB_NO_WAKEUP);
    return 0;
}

SEC("xdp")
int ethertype(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

    if (data + 14 > end)
        return XDP_ABORTED;
    return *(__u16 *)(data + 12) == 0x0008 ? XDP_PASS : XDP_DROP;
}

#define ADD asm volatile("r0 += 1" ::: "r0");
#define ADD_10 ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD

// every one has one `r0 = 0` first: without any it would have to be initialised by nothing
#define ADDING(name, ...) \
    SEC("xdp") int name(struct xdp_md *ctx) { asm volatile("r0 = 0" ::: "r0"); __VA_ARGS__ return 0; }

ADDING(plus_0)
ADDING(plus_1, ADD)
ADDING(plus_5, ADD ADD ADD ADD ADD)
ADDING(plus_50, ADD_10 ADD_10 ADD_10 ADD_10 ADD_10)

// -- what measuring itself reads, where programs are called in other ways --

SEC("tracepoint/syscalls/sys_enter_getpid") int empty_tracepoint(void *ctx) { return 0; }
SEC("raw_tp/sys_enter") int empty_raw_tracepoint(void *ctx) { return 0; }
SEC("fentry/vfs_statfs") int empty_fentry(void *ctx) { return 0; }
SEC("fexit/vfs_statfs") int empty_fexit(void *ctx) { return 0; }

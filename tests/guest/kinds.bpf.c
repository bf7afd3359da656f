// One program of each kind that few kernels of virtual machines have. Without vmlinux.h, so that
// the object compiled on the host serves every kernel.

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct task_struct {
    int pid, tgid;
} __attribute__((preserve_access_index));

struct kstatfs;

#define EPERM 1
#define CLOCK_MONOTONIC 1

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 only = 0;
__u64 hits, argument;
__s64 returned;

static __always_inline bool mine(void)
{
    return bpf_get_current_pid_tgid() >> 32 == only;
}

static __always_inline int hit(void)
{
    if (mine())
        __sync_fetch_and_add(&hits, 1);
    return 0;
}

SEC("kprobe/vfs_statfs") int on_kprobe(void *ctx) { return hit(); }
SEC("kprobe") int on_any_kprobe(void *ctx) { return hit(); }
SEC("kretprobe/vfs_statfs") int on_kretprobe(void *ctx) { return hit(); }
SEC("kretprobe") int on_any_kretprobe(void *ctx) { return hit(); }
SEC("ksyscall/getpriority") int on_ksyscall(void *ctx) { return hit(); }
SEC("kretsyscall/getpriority") int on_kretsyscall(void *ctx) { return hit(); }
SEC("kprobe.multi/vfs_statf*") int on_kprobe_multi(void *ctx) { return hit(); }
SEC("kprobe/no_such_function") int on_nothing(void *ctx) { return hit(); }

SEC("fentry/vfs_statfs") int on_fentry(void *ctx) { return hit(); }

SEC("fexit/vfs_statfs")
int BPF_PROG(on_fexit, const void *path, struct kstatfs *buf, int ret)
{
    if (mine()) {
        __sync_fetch_and_add(&hits, 1);
        returned = ret;
    }
    return 0;
}

SEC("fmod_ret/security_task_setnice")
int BPF_PROG(on_fmod_ret, struct task_struct *task, int nice, int ret)
{
    if (!mine())
        return ret;
    argument = nice;
    return hit() - EPERM;
}

SEC("lsm/task_setnice")
int BPF_PROG(on_lsm, struct task_struct *task, int nice, int ret)
{
    if (ret || !mine() || nice != 7)
        return ret;
    argument = task->tgid;
    return hit() - EPERM;
}

SEC("lsm.s/file_open") int on_sleepable_lsm(void *ctx) { return hit(); }

// -- on the way of one system call: tail calls, loops, timers --

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u32);
} jumps SEC(".maps");

SEC("kprobe/vfs_statfs")
int jumping(void *ctx)
{
    if (mine()) {
        bpf_tail_call(ctx, &jumps, 1);
        returned = -1;
    }
    return 0;
}

SEC("kprobe/vfs_statfs")
int jumping_on(void *ctx)
{
    argument++;
    bpf_tail_call(ctx, &jumps, 1);
    returned = argument;
    return hit();
}

static long add(__u32 index, void *ctx)
{
    argument += index;
    return index == 999;
}

SEC("kprobe/vfs_statfs")
int looping(void *ctx)
{
    if (mine())
        returned = bpf_loop(5000, add, NULL, 0);
    return hit();
}

struct waiting {
    struct bpf_timer timer;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct waiting);
} timers SEC(".maps");

static int rang(void *map, __u32 *key, struct waiting *value)
{
    __sync_fetch_and_add(&hits, 1);
    if (hits < 5)
        bpf_timer_start(&value->timer, 1000000, 0);
    return 0;
}

SEC("xdp")
int start_timer(struct xdp_md *ctx)
{
    __u32 zero = 0;
    struct waiting *value = bpf_map_lookup_elem(&timers, &zero);

    if (!value)
        return XDP_ABORTED;
    bpf_timer_init(&value->timer, &timers, CLOCK_MONOTONIC);
    bpf_timer_set_callback(&value->timer, rang);
    return bpf_timer_start(&value->timer, 1000000, 0) ? XDP_DROP : XDP_PASS;
}

// -- the compiler in the kernel --

SEC("xdp")
int adding(struct xdp_md *ctx)
{
    for (int i = 0; i < 100; i++)
        asm volatile("r1 += 1" ::: "r1");
    return XDP_PASS;
}

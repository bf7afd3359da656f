// Programs whose lines are counted, of kinds that few kernels have. Without vmlinux.h, so that the
// object compiled on the host serves every kernel.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 only = 0;
__u64 hits;

__attribute__((noinline)) int part(struct xdp_md *ctx)
{
    return ctx->data_end > ctx->data ? XDP_PASS : XDP_ABORTED;
}

SEC("xdp")
int whole(struct xdp_md *ctx)
{
    return part(ctx);
}

SEC("freplace/part")
int instead(struct xdp_md *ctx)
{
    if (ctx->data_end - ctx->data > 100)
        return XDP_TX;
    return XDP_DROP;
}

SEC("lsm.s/bpf")
int asleep(void *ctx)
{
    char byte;

    if (bpf_get_current_pid_tgid() >> 32 != only)
        return 0;
    if (bpf_copy_from_user(&byte, 1, (void *)8))
        hits++;
    return 0;
}

SEC("kprobe/vfs_statfs")
int on_statfs(void *ctx)
{
    if (bpf_get_current_pid_tgid() >> 32 == only)
        hits++;
    return 0;
}

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} sizes SEC(".maps");

SEC("xdp")
int by_size(struct xdp_md *ctx)
{
	__u32 size = ctx->data_end - ctx->data;
	__u64 one = 1;

	bpf_map_update_elem(&sizes, &size, &one, BPF_ANY);
	return size > 100 ? XDP_DROP : XDP_PASS;
}

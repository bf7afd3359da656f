/* Counts every packet, and lets it pass. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

__u64 passed;

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	__sync_fetch_and_add(&passed, 1);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";

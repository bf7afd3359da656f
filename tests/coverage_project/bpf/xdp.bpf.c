#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include "parse.h"
char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

SEC("xdp")
int filter(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u32 key = 0;
	__u64 *count;

	if (is_short(ctx))
		return XDP_DROP;
	if ((void *)(eth + 1) > end) /* no cover */
		return XDP_ABORTED;
	count = bpf_map_lookup_elem(&hits, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	switch (bpf_ntohs(eth->h_proto)) {
	case 0x0800:
		return XDP_PASS;
	case 0x86dd:
		return XDP_TX;
	}
	return XDP_DROP;
}

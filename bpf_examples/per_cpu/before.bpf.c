// SPDX-License-Identifier: GPL-2.0
/* Packets and bytes in one place: every CPU locks the same cache line. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct stats {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stats);
} totals SEC(".maps");

SEC("tc")
int count(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct stats *stats = bpf_map_lookup_elem(&totals, &key);

	if (!stats)
		return 0;	/* no cover: an array has its elements */
	__sync_fetch_and_add(&stats->packets, 1);
	__sync_fetch_and_add(&stats->bytes, skb->len);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* Packets and bytes per CPU: nothing is shared, so nothing need be locked. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct stats {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
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
		return 0;	/* no cover: each CPU has its element */
	stats->packets++;
	stats->bytes += skb->len;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* Packets by source, in a map for those that matter: the oldest make room. */
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_P_IP 0x0800

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 10000);
	__type(key, __be32);	/* IPv4 source address */
	__type(value, __u64);
} packets SEC(".maps");

__u64 refused;	/* packets of sources that found no room */

SEC("tc")
int count(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	__u64 zero = 0, *seen;
	__be32 source;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	source = ip->saddr;
	seen = bpf_map_lookup_elem(&packets, &source);
	if (!seen) {
		/* Of two CPUs that get here, one inserts, and both add below. */
		bpf_map_update_elem(&packets, &source, &zero, BPF_NOEXIST);
		seen = bpf_map_lookup_elem(&packets, &source);
	}
	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		__sync_fetch_and_add(&refused, 1);	/* no cover: an LRU hash makes room */
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

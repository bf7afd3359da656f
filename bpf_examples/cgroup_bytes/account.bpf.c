// SPDX-License-Identifier: GPL-2.0
/* Packets and bytes of every cgroup below the one that this is attached to, by direction. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct amount {
	__u64 packets;	/* as the stack sees them: TCP's can be larger than the wire's */
	__u64 bytes;	/* from the IP header on */
};

struct traffic {
	struct amount received;
	struct amount sent;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);	/* cgroup id */
	__type(value, struct traffic);
} accounts SEC(".maps");

__u64 unaccounted;	/* packets of cgroups that found no room */

static __always_inline struct traffic *account(struct __sk_buff *skb)
{
	__u64 cgroup = bpf_skb_cgroup_id(skb);	/* the socket's, not the running process's */
	struct traffic *traffic = bpf_map_lookup_elem(&accounts, &cgroup);
	struct traffic zero = {};

	if (traffic)
		return traffic;
	/* Of two CPUs that get here, one inserts, and both add to what is there. */
	bpf_map_update_elem(&accounts, &cgroup, &zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(&accounts, &cgroup);
}

/* Atomic: one packet's softirq may interrupt the counting of another on the same CPU. */
static __always_inline int add(struct amount *amount, struct __sk_buff *skb)
{
	__sync_fetch_and_add(&amount->packets, 1);
	__sync_fetch_and_add(&amount->bytes, skb->len);
	return 1;	/* go on: 0 would drop the packet */
}

static __always_inline int lose(void)
{
	__sync_fetch_and_add(&unaccounted, 1);
	return 1;
}

SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	struct traffic *traffic = account(skb);

	return traffic ? add(&traffic->received, skb) : lose();
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	struct traffic *traffic = account(skb);

	return traffic ? add(&traffic->sent, skb) : lose();
}

char LICENSE[] SEC("license") = "GPL";

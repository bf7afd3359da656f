// SPDX-License-Identifier: GPL-2.0
/* Drops UDP to one port, and all from blocked networks, before the network stack sees it. */
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_P_IP	0x0800
#define ETH_P_8021Q	0x8100
#define ETH_P_IPV6	0x86dd
#define ETH_P_8021AD	0x88a8
#define IP_OFFSET	0x1fff	/* of a fragment, in units of 8 bytes */
#define IP6_OFFSET	0xfff8
#define NEXTHDR_HOP	0
#define NEXTHDR_ROUTING	43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_DEST	60
#define VLAN_TAGS	2	/* at most that are looked behind */
#define EXTENSIONS	4	/* IPv6 headers, likewise */

enum verdict {
	PASSED,
	BLOCKED_SOURCE,
	BLOCKED_PORT,
	VERDICTS
};

struct network4 {
	__u32 prefixlen;
	__be32 address;
};

struct network6 {
	__u32 prefixlen;
	struct in6_addr address;
};

/* The longest prefix decides: 1 blocks, 0 excepts a part of a blocked network. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 10000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network4);
	__type(value, __u8);
} sources4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 10000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network6);
	__type(value, __u8);
} sources6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__type(key, __u32);	/* enum verdict */
	__type(value, __u64);
} packets SEC(".maps");

const volatile __u16 port;	/* blocked for UDP; 0 blocks none */

static __always_inline enum verdict judge_udp(struct udphdr *udp, void *end)
{
	if ((void *)(udp + 1) > end || !port)
		return PASSED;
	return udp->dest == bpf_htons(port) ? BLOCKED_PORT : PASSED;
}

static __always_inline enum verdict judge_ipv4(struct iphdr *ip, void *end)
{
	struct network4 source = { .prefixlen = 32 };
	__u8 *blocked;

	if ((void *)(ip + 1) > end)
		return PASSED;
	source.address = ip->saddr;
	blocked = bpf_map_lookup_elem(&sources4, &source);
	if (blocked && *blocked)
		return BLOCKED_SOURCE;
	if (ip->protocol != IPPROTO_UDP || ip->ihl < 5)
		return PASSED;
	if (ip->frag_off & bpf_htons(IP_OFFSET))
		return PASSED;	/* without the first fragment, which has the port, it is nothing */
	return judge_udp((void *)ip + ip->ihl * 4, end);
}

static __always_inline enum verdict judge_ipv6(struct ipv6hdr *ip, void *end)
{
	struct network6 source = { .prefixlen = 128 };
	struct ipv6_opt_hdr *option;
	struct frag_hdr *fragment;
	void *header = ip + 1;
	__u8 *blocked, next;

	if (header > end)
		return PASSED;
	source.address = ip->saddr;
	blocked = bpf_map_lookup_elem(&sources6, &source);
	if (blocked && *blocked)
		return BLOCKED_SOURCE;
	next = ip->nexthdr;
	for (int i = 0; i <= EXTENSIONS; i++) {
		switch (next) {
		case IPPROTO_UDP:
			return judge_udp(header, end);
		case NEXTHDR_HOP:
		case NEXTHDR_ROUTING:
		case NEXTHDR_DEST:
			option = header;
			if ((void *)(option + 1) > end)
				return PASSED;
			next = option->nexthdr;
			header += (option->hdrlen + 1) * 8;
			break;
		case NEXTHDR_FRAGMENT:
			fragment = header;
			if ((void *)(fragment + 1) > end)
				return PASSED;
			if (fragment->frag_off & bpf_htons(IP6_OFFSET))
				return PASSED;
			next = fragment->nexthdr;
			header = fragment + 1;
			break;
		default:
			return PASSED;
		}
	}
	return PASSED;
}

static __always_inline enum verdict judge(struct ethhdr *eth, void *end)
{
	void *header = eth + 1;
	__be16 protocol;

	if (header > end)
		return PASSED;	/* no cover: no frame is shorter than its header */
	protocol = eth->h_proto;
	for (int i = 0; i < VLAN_TAGS; i++) {
		struct vlan_hdr *vlan = header;

		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(vlan + 1) > end)
			return PASSED;
		protocol = vlan->h_vlan_encapsulated_proto;
		header = vlan + 1;
	}
	if (protocol == bpf_htons(ETH_P_IP))
		return judge_ipv4(header, end);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return judge_ipv6(header, end);
	return PASSED;
}

SEC("xdp")
int filter(struct xdp_md *ctx)
{
	__u32 verdict = judge((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	__u64 *count = bpf_map_lookup_elem(&packets, &verdict);

	if (count)
		(*count)++;
	return verdict == PASSED ? XDP_PASS : XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/*
 * A packet filter with a little of everything, thirty times with another mistake. Without VARIANTS
 * there is one program, the right one; with it there are wrong_1 to wrong_30.
 */
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct flow { __be32 saddr, daddr; __be16 sport, dport; __u32 protocol; };
struct event { __be32 saddr; __u16 dport; __u16 length; };

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 256);
	 __type(key, __u32); __type(value, __u64); } protocols SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 256);
	 __type(key, struct flow); __type(value, __u64); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 16);
	 __type(key, __u32); __type(value, __u64); } sizes SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 8192); } events SEC(".maps");

const volatile __u16 wanted = 40007;
const volatile __u32 secret = 0xdeadbeef;
__u64 total, last;

static __always_inline void add(void *map, __u32 key, __u64 by)
{
	__u64 *value = bpf_map_lookup_elem(map, &key);

	if (value)
		*value += by;
}

static __always_inline void report(const struct flow *flow, int length, int v)
{
	struct event event = {flow->saddr, bpf_ntohs(flow->dport), length};

	if (v == 19)
		event.dport = flow->dport;
	if (v == 20 && flow->saddr == flow->daddr)
		return;
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
}

static __always_inline int work(struct xdp_md *ctx, const int v)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	int length = end - data, header = 14;
	struct ethhdr *eth = data;
	struct udphdr *udp;
	struct iphdr *ip;
	struct flow flow = {};
	__u64 one = 1, now, *seen;
	__be16 type;

	if (data + 14 > end)
		return XDP_PASS;
	type = eth->h_proto;
	if (type == bpf_htons(0x8100)) {
		__be16 *tag = data + 14;

		if (data + 18 > end)
			return XDP_PASS;
		if ((bpf_ntohs(tag[0]) & (v == 3 ? 0x07ff : 0x0fff)) == 0x842)
			return XDP_DROP;
		type = tag[1];
		header = 18;
	}
	if (type != bpf_htons(0x0800)) {
		if (v != 10)
			total++;
		return XDP_PASS;
	}
	ip = data + header;
	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	total += v == 13 ? length & 0x3f : length;
	add(&protocols, ip->protocol, 1);
	if (ip->ihl < (v == 4 ? 4 : 5))
		return XDP_DROP;
	if (ip->frag_off & bpf_htons(v == 5 ? 0x0fff : 0x1fff))
		return XDP_PASS;
	udp = (void *)ip + ip->ihl * 4;
	if (v == 6 ? (void *)(udp + 1) >= end : (void *)(udp + 1) > end)
		return XDP_PASS;
	if (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP && !(v == 9 && ip->protocol == 132))
		return XDP_PASS;
	flow = (struct flow){ip->saddr, ip->daddr, udp->source, udp->dest, v == 30 ? 0 : ip->protocol};
	seen = bpf_map_lookup_elem(&flows, &flow);
	if (seen)
		*seen += v == 12 && *seen == 3 ? 2 : 1;
	else
		bpf_map_update_elem(&flows, &flow, &one, v == 11 ? BPF_EXIST : BPF_NOEXIST);
	add(&sizes, length >> 7 < 15 ? length >> 7 : v == 25 ? 14 : 15, v == 21 ? length & ~1 : length);
	if (udp->dest == (v == 7 ? 53 : bpf_htons(53)))
		return XDP_DROP;
	if (ip->protocol == IPPROTO_UDP && (v == 8 ? bpf_ntohs(udp->len) <= 1 : udp->len == 0))
		return XDP_ABORTED;
	if (bpf_ntohs(udp->dest) == wanted && ip->ttl == 77) {
		if (v == 2)
			add(&protocols, 255, 1);
		return v == 1 ? XDP_PASS : XDP_DROP;
	}
	if (bpf_ntohs(udp->source) >= 1000 && (v == 29 ? bpf_ntohs(udp->source) <= 1003 : bpf_ntohs(udp->source) < 1003))
		return XDP_DROP;
	if (v == 26 ? (__u16)(bpf_ntohs(udp->source) + bpf_ntohs(udp->dest)) > 0xfffe
		    : bpf_ntohs(udp->source) + bpf_ntohs(udp->dest) > 0xfffe)
		return XDP_DROP;
	if (v == 27 ? (__s32)bpf_ntohl(ip->daddr) > 0x60000000 : bpf_ntohl(ip->daddr) > 0x60000000)
		add(&protocols, 254, 1);
	if (v == 28 && bpf_ntohl(ip->saddr) == bpf_ntohl(ip->daddr) + 0x01020304)
		return XDP_DROP;
	now = bpf_ktime_get_ns();
	if (v == 22 ? now - last <= 5000 : now - last < 5000)
		return XDP_TX;
	if (v != 23 || ip->tos)
		last = now;
	if (!(bpf_get_prandom_u32() & (v == 24 ? 0x7f : 0xff)))
		report(&flow, length, v);
	if ((void *)(udp + 1) + 4 <= end) {
		__u32 word = *(__u32 *)(udp + 1);

		if (v == 17 ? (word & 0xffffff) == (secret & 0xffffff)
			    : word == (v == 18 ? bpf_htonl(secret) : secret))
			return XDP_DROP;
	}
	if (udp->dest == bpf_htons(8080)) {
		if (ip->ttl <= (v == 14 ? 2 : 1))
			return XDP_DROP;
		ip->ttl--;
		if (v != 15)
			ip->check += bpf_htons(0x0100);
		return v == 16 ? XDP_PASS : XDP_TX;
	}
	return XDP_PASS;
}

#define WRONG(n) SEC("xdp") int wrong_##n(struct xdp_md *ctx) { return work(ctx, n); }
#ifdef VARIANTS
WRONG(1) WRONG(2) WRONG(3) WRONG(4) WRONG(5) WRONG(6) WRONG(7) WRONG(8) WRONG(9) WRONG(10)
WRONG(11) WRONG(12) WRONG(13) WRONG(14) WRONG(15) WRONG(16) WRONG(17) WRONG(18) WRONG(19) WRONG(20)
WRONG(21) WRONG(22) WRONG(23) WRONG(24) WRONG(25) WRONG(26) WRONG(27) WRONG(28) WRONG(29) WRONG(30)
#endif
SEC("xdp") int right(struct xdp_md *ctx) { return work(ctx, 0); }
char LICENSE[] SEC("license") = "GPL";

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_P_IP 0x0800
#define MOST_BACKENDS 64

struct service {
	__be32 address;
	__be16 port;
	__u8 protocol;
	__u8 padding;
};

struct backends {
	__u32 first;  /* in the map backends */
	__u32 count;
};

struct backend {
	__u8 mac[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct service);
	__type(value, struct backends);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MOST_BACKENDS);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

struct ports {
	__be16 source;
	__be16 dest;
};

static __always_inline __u32 hash(__u32 a, __u32 b)
{
	a ^= b * 0x9e3779b1;
	a ^= a >> 16;
	a *= 0x85ebca6b;
	return a ^ a >> 13;
}

SEC("xdp")
int balance(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct ports *ports = (void *)(ip + 1);
	struct service service = {};
	struct backends *of_service;
	struct backend *backend;
	__u64 *sent;
	__u32 number;

	if ((void *)(ports + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
		return XDP_PASS;
	if (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP)
		return XDP_PASS;

	service.address = ip->daddr;
	service.port = ports->dest;
	service.protocol = ip->protocol;
	of_service = bpf_map_lookup_elem(&services, &service);
	if (!of_service || !of_service->count)
		return XDP_PASS;

	number = hash(ip->saddr, (__u32)ports->source << 16 | ip->protocol) % of_service->count;
	number += of_service->first;
	backend = bpf_map_lookup_elem(&backends, &number);
	if (!backend)
		return XDP_ABORTED;
	sent = bpf_map_lookup_elem(&packets, &number);
	if (sent)
		*sent += 1;

	__builtin_memcpy(eth->h_source, eth->h_dest, 6);
	__builtin_memcpy(eth->h_dest, backend->mac, 6);
	return XDP_TX;
}

char LICENSE[] SEC("license") = "GPL";

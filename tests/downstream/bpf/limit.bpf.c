/* Lets each port have its share of packets, and drops the rest. */
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

const volatile __u64 share = 100;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u16);
	__type(value, __u64);
} packets SEC(".maps");

SEC("xdp")
int limit(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u64 one = 1, *count;
	__u16 port;

	if ((void *)(udp + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (eth->h_proto != bpf_htons(0x0800) || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	port = bpf_ntohs(udp->dest);
	count = bpf_map_lookup_elem(&packets, &port);
	if (!count) {
		bpf_map_update_elem(&packets, &port, &one, BPF_NOEXIST);
		return XDP_PASS;
	}
	__sync_fetch_and_add(count, 1);
	return *count > share ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";

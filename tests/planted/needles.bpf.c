// Programs of which few packets show that two differ: NEEDLE is the condition, THEN the verdict.

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u16 secret = 40007;
const volatile __u32 offset = 0x01020304;

SEC("xdp")
int find(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end)
		return XDP_PASS;
	if (NEEDLE)
		return THEN;
	return XDP_PASS;
}

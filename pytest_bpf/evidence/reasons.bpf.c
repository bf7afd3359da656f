/* Counts dropped packets (skb:kfree_skb) by network namespace, reason and kernel function. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct drop {
	__u64 namespace; /* net->net_cookie: never used twice, unlike its inode */
	__u64 location;
	__u32 reason;
	__u32 padding;
};

struct drops {
	__u64 packets;
	char function[56]; /* the symbol of the location */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct drop);
	__type(value, struct drops);
} drops SEC(".maps");

const volatile __u64 home = 0;        /* the namespace that is never counted: the process's own */
const volatile bool has_rx_sk = true; /* the tracepoint names the receiving socket (Linux 6.11) */
bool counting = false;
__u64 uncounted = 0; /* drops that found no room in the map */

static __always_inline __u64 of_socket(struct sock *sk)
{
	return sk ? BPF_CORE_READ(sk, __sk_common.skc_net.net, net_cookie) : 0;
}

static __always_inline __u64 of_device(struct net_device *dev)
{
	return dev ? BPF_CORE_READ(dev, nd_net.net, net_cookie) : 0;
}

SEC("tp_btf/kfree_skb")
int count(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct drop key = {.location = ctx[1], .reason = (__u32)ctx[2]};
	static const char symbol[] = "%ps";
	struct drops first = {}, *found;

	if (!counting)
		return 0;
	/* Attaching native XDP to a veth makes and frees an empty one (napi_get_frags_check). */
	if (!BPF_CORE_READ(skb, len) && !BPF_CORE_READ(skb, protocol))
		return 0;
	if (has_rx_sk)
		key.namespace = of_socket((struct sock *)ctx[3]);
	if (!key.namespace)
		key.namespace = of_device(BPF_CORE_READ(skb, dev));
	if (!key.namespace)
		key.namespace = of_socket(BPF_CORE_READ(skb, sk));
	if (!key.namespace || key.namespace == home)
		return 0;

	found = bpf_map_lookup_elem(&drops, &key);
	if (!found) {
		bpf_snprintf(first.function, sizeof(first.function), symbol, &key.location, 8);
		bpf_map_update_elem(&drops, &key, &first, BPF_NOEXIST);
		found = bpf_map_lookup_elem(&drops, &key);
	}
	__sync_fetch_and_add(found ? &found->packets : &uncounted, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

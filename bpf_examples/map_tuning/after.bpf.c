// SPDX-License-Identifier: GPL-2.0
/* The latest connections, in an LRU hash: nobody takes them out, the oldest make room. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct connection {
	__u64 since;	/* ns after boot */
	__u64 segments;	/* received */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 10000);
	__type(key, __u64);	/* socket cookie */
	__type(value, struct connection);
} connections SEC(".maps");

const volatile __u32 netns;	/* whose connections: inode of the network namespace */
__u64 refused;			/* connections that found no room */

static __always_inline void open(__u64 cookie)
{
	struct connection connection = { .since = bpf_ktime_get_ns() };

	if (bpf_map_update_elem(&connections, &cookie, &connection, BPF_ANY))
		__sync_fetch_and_add(&refused, 1);	/* no cover: an LRU hash makes room */
}

static __always_inline void use(__u64 cookie)
{
	struct connection *connection = bpf_map_lookup_elem(&connections, &cookie);

	if (connection)
		__sync_fetch_and_add(&connection->segments, 1);
}

static __always_inline bool is_ours(struct sock *sk)
{
	return sk->__sk_common.skc_net.net->ns.inum == netns;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock *sk, int old, int new)
{
	if (!is_ours(sk))
		return 0;
	if (new == TCP_ESTABLISHED)
		open(bpf_get_socket_cookie(sk));
	return 0;
}

SEC("tp_btf/tcp_probe")
int BPF_PROG(on_segment, struct sock *sk)
{
	if (is_ours(sk))
		use(bpf_get_socket_cookie(sk));
	return 0;
}

/* The same without a network, a thousand connections a run: their cookies begin at mark. */

#define RUN 1024

SEC("tc")
int steady(struct __sk_buff *skb)
{
	for (int i = 0; i < RUN; i++)
		use(skb->mark + i);
	return 0;
}

SEC("tc")
int life_cycle(struct __sk_buff *skb)
{
	for (int i = 0; i < RUN; i++) {
		__u64 cookie = skb->mark + i;

		open(cookie);
		use(cookie);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

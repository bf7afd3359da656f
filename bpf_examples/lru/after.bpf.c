// SPDX-License-Identifier: GPL-2.0
/* Connections seen, in an LRU hash: once it is full, forgotten ones make room. */
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
	__type(key, __u64);	/* socket cookie: a pid has many connections, and is used again */
	__type(value, struct connection);
} connections SEC(".maps");

const volatile __u32 netns;	/* whose connections: inode of the network namespace */
__u64 refused;			/* connections that found no room */

static __always_inline bool is_ours(struct sock *sk)
{
	return sk->__sk_common.skc_net.net->ns.inum == netns;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(remember, struct sock *sk, int old, int new)
{
	struct connection connection = { .since = bpf_ktime_get_ns() };
	__u64 cookie;

	if (new != TCP_ESTABLISHED || !is_ours(sk))
		return 0;
	cookie = bpf_get_socket_cookie(sk);
	if (bpf_map_update_elem(&connections, &cookie, &connection, BPF_ANY))
		__sync_fetch_and_add(&refused, 1);	/* no cover: an LRU hash makes room */
	return 0;
}

SEC("tp_btf/tcp_probe")
int BPF_PROG(receive, struct sock *sk)
{
	struct connection *connection;
	__u64 cookie;

	if (!is_ours(sk))
		return 0;
	cookie = bpf_get_socket_cookie(sk);
	connection = bpf_map_lookup_elem(&connections, &cookie);
	if (connection)
		__sync_fetch_and_add(&connection->segments, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

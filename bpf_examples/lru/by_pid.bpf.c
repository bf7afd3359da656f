// SPDX-License-Identifier: GPL-2.0
/* Wrong: keyed by pid as in the guide, every process has one connection, the last one. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 10000);
	__type(key, __u32);	/* pid */
	__type(value, __u64);	/* ns after boot */
} connections SEC(".maps");

const volatile __u32 netns;	/* whose connections: inode of the network namespace */

/* Still in connect(), so the current process is the one that connects. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(remember, struct sock *sk, int old, int new)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 now = bpf_ktime_get_ns();

	if (new == TCP_SYN_SENT && sk->__sk_common.skc_net.net->ns.inum == netns)
		bpf_map_update_elem(&connections, &pid, &now, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

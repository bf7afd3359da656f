// SPDX-License-Identifier: GPL-2.0
/* What nginx sends to each peer by TCP: all is found out first, and then who it is for. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct peer {
	__be32 address;		/* IPv4 */
	__be32 port;		/* in the lower half: no padding in a key */
};

struct sends {
	__u64 count;
	__u64 bytes;
	__u64 last;		/* ns after boot */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, struct peer);
	__type(value, struct sends);
} peers SEC(".maps");

const volatile __u32 tgid;	/* whose sends */
__u64 uncounted;		/* sends to peers that found no room */

static __always_inline bool is_nginx(const char *comm)
{
	return comm[0] == 'n' && comm[1] == 'g' && comm[2] == 'i' && comm[3] == 'n' &&
	       comm[4] == 'x' && comm[5] == '\0';
}

static __always_inline int account(struct sock *sk, __u64 bytes)
{
	struct peer peer = {
		.address = BPF_CORE_READ(sk, __sk_common.skc_daddr),
		.port = BPF_CORE_READ(sk, __sk_common.skc_dport),
	};
	struct sends zero = {}, *sends = bpf_map_lookup_elem(&peers, &peer);
	__u64 now = bpf_ktime_get_ns();
	char comm[TASK_COMM_LEN] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	if (!is_nginx(comm))
		return 0;
	if (bpf_get_current_pid_tgid() >> 32 != tgid)
		return 0;
	if (!sends) {
		bpf_map_update_elem(&peers, &peer, &zero, BPF_NOEXIST);
		sends = bpf_map_lookup_elem(&peers, &peer);
	}
	if (!sends) {
		__sync_fetch_and_add(&uncounted, 1);
		return 0;
	}
	__sync_fetch_and_add(&sends->count, 1);
	__sync_fetch_and_add(&sends->bytes, bytes);
	sends->last = now;
	return 0;
}

SEC("kprobe/tcp_sendmsg")
int BPF_KPROBE(on_call, struct sock *sk, struct msghdr *msg, size_t requested)
{
	return account(sk, requested);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(on_return, struct sock *sk, int sent)
{
	return sent > 0 && sk->sk_protocol == IPPROTO_TCP ? account(sk, sent) : 0;
}

char LICENSE[] SEC("license") = "GPL";

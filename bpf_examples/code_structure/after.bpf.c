// SPDX-License-Identifier: GPL-2.0
/* What each process sends by TCP: calls and bytes side by side, found by one look-up. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct stats {
	__u64 count;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);	/* process */
	__type(value, struct stats);
} combined_stats SEC(".maps");

__u64 uncounted;	/* calls of processes that found no room */

static __always_inline struct stats *stats_of(__u32 pid)
{
	struct stats zero = {}, *stats = bpf_map_lookup_elem(&combined_stats, &pid);

	if (stats)
		return stats;
	/* Of two CPUs that get here, one inserts, and both add to what is there. */
	bpf_map_update_elem(&combined_stats, &pid, &zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(&combined_stats, &pid);
}

static __always_inline int account(__u64 bytes)
{
	struct stats *stats = stats_of(bpf_get_current_pid_tgid() >> 32);

	if (stats) {
		__sync_fetch_and_add(&stats->count, 1);
		__sync_fetch_and_add(&stats->bytes, bytes);
	} else {
		__sync_fetch_and_add(&uncounted, 1);
	}
	return 0;
}

SEC("kprobe/tcp_sendmsg")
int BPF_KPROBE(on_call, struct sock *sk, struct msghdr *msg, size_t requested)
{
	return account(requested);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(on_return, struct sock *sk, int sent)
{
	return sent > 0 && sk->sk_protocol == IPPROTO_TCP ? account(sent) : 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* What each process sends by TCP: a map for the calls, another for the bytes. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);	/* process */
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);	/* process */
	__type(value, __u64);
} sizes SEC(".maps");

__u64 uncounted;	/* calls of processes that found no room */

static __always_inline __u64 *sum_of(void *map, __u32 pid)
{
	__u64 zero = 0, *sum = bpf_map_lookup_elem(map, &pid);

	if (sum)
		return sum;
	/* Of two CPUs that get here, one inserts, and both add to what is there. */
	bpf_map_update_elem(map, &pid, &zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, &pid);
}

static __always_inline int account(__u64 bytes)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 *count, *size;

	bpf_get_current_task();	/* nobody looks at it, and yet it is called */
	count = sum_of(&counts, pid);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		__sync_fetch_and_add(&uncounted, 1);
	size = sum_of(&sizes, pid);
	if (size)
		__sync_fetch_and_add(size, bytes);
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

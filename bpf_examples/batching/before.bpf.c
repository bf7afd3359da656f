// SPDX-License-Identifier: GPL-2.0
/* What a process sends by TCP: every send is an event, and a record of its own. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct event {
	__u32 tgid;
	__u32 bytes;
	char comm[TASK_COMM_LEN];
};

const struct event *unused __attribute__((unused));	/* keeps the type in the BTF */

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

const volatile __u32 tgid;	/* whose sends */
__u64 lost;			/* events that found no room */

static __always_inline int account(void *ctx, __u32 bytes)
{
	struct event event = { .tgid = tgid, .bytes = bytes };

	if (bpf_get_current_pid_tgid() >> 32 != tgid)
		return 0;
	bpf_get_current_comm(event.comm, sizeof(event.comm));
	if (bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event)))
		__sync_fetch_and_add(&lost, 1);
	return 0;
}

SEC("kprobe/tcp_sendmsg")
int BPF_KPROBE(on_call, struct sock *sk, struct msghdr *msg, size_t requested)
{
	return account(ctx, requested);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(on_return, struct sock *sk, int sent)
{
	return sent > 0 && sk->sk_protocol == IPPROTO_TCP ? account(ctx, sent) : 0;
}

/* No hook: run by BPF_PROG_RUN. Argument: bytes. */
SEC("raw_tp")
int on_run(struct bpf_raw_tracepoint_args *ctx)
{
	return account(ctx, ctx->args[0]);
}

char LICENSE[] SEC("license") = "GPL";

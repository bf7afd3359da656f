// SPDX-License-Identifier: GPL-2.0
/* What a process sends by TCP as events: made in the ring buffer, which all CPUs share. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct event {
	__u32 tgid;
	__u32 thread;
	__u64 bytes;
	char comm[TASK_COMM_LEN];
};

const struct event *unused __attribute__((unused));	/* keeps the type in the BTF */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

const volatile __u32 tgid;	/* whose sends */
const volatile __u64 wake_at;	/* bytes that wait: wakes the reader then, and not before */
__u64 lost;			/* events that found no room */

/* By itself the kernel wakes a reader that has caught up, for every event. */
static __always_inline __u64 waking(void)
{
	if (!wake_at)
		return 0;
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= wake_at ?
	       BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline int account(void *ctx, __u64 bytes)
{
	__u64 who = bpf_get_current_pid_tgid();
	struct event *event;

	if (who >> 32 != tgid)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	event->tgid = who >> 32;
	event->thread = who;
	event->bytes = bytes;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	bpf_ringbuf_submit(event, waking());
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

/* Wakes the reader for what is left at the end: an empty record, which is thrown away. */
SEC("raw_tp")
int wake(void *ctx)
{
	void *nothing = bpf_ringbuf_reserve(&events, 1, 0);

	if (nothing)
		bpf_ringbuf_discard(nothing, BPF_RB_FORCE_WAKEUP);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

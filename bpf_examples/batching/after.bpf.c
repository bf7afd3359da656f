// SPDX-License-Identifier: GPL-2.0
/* What a process sends by TCP: a hundred sends of a CPU are one record. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define BATCH 100	/* events */

struct event {
	__u32 tgid;
	__u32 bytes;
	char comm[TASK_COMM_LEN];
};

struct batch {
	__u32 count;
	struct event events[BATCH];	/* of which the first count are new */
};

const struct batch *unused __attribute__((unused));	/* keeps the type in the BTF */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct batch);
} batches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

const volatile __u32 tgid;	/* whose sends */
__u64 lost;			/* events that found no room */

/* Empties a batch, unless the buffer has no room for it. */
static __always_inline void output(void *ctx, struct batch *batch)
{
	if (!bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, batch, sizeof(*batch)))
		batch->count = 0;
}

static __always_inline int account(void *ctx, __u32 bytes)
{
	__u32 zero = 0, count;
	struct batch *batch;
	struct event *event;

	if (bpf_get_current_pid_tgid() >> 32 != tgid)
		return 0;
	batch = bpf_map_lookup_elem(&batches, &zero);
	if (!batch)
		return 0;	/* no cover: each CPU has its element */
	if (batch->count >= BATCH)	/* there was no room the last time */
		output(ctx, batch);
	count = batch->count;	/* read once: what is compared is what is used */
	if (count >= BATCH) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	event = &batch->events[count];
	event->tgid = tgid;
	event->bytes = bytes;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	batch->count = count + 1;
	if (count + 1 == BATCH)
		output(ctx, batch);
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

/* Puts out what this CPU has: run it on each at the end, and now and then before. */
SEC("raw_tp")
int flush(void *ctx)
{
	__u32 zero = 0;
	struct batch *batch = bpf_map_lookup_elem(&batches, &zero);

	if (batch && batch->count)
		output(ctx, batch);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

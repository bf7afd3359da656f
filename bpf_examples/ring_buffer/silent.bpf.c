// SPDX-License-Identifier: GPL-2.0
/* Wrong: never wakes the reader. It sleeps, the buffer fills, and the rest is lost. */
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
__u64 lost;			/* events that found no room */

static __always_inline int account(__u64 bytes)
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
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("raw_tp")
int on_run(struct bpf_raw_tracepoint_args *ctx)
{
	return account(ctx->args[0]);
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* Wrong: a hole in the event, which nobody fills: user space gets what lay there before. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct holed {
	__u32 tgid;
	__u64 bytes;	/* four bytes further on */
	char comm[TASK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* An event of another kind, which leaves its bytes in the buffer. Argument: what it is full of. */
SEC("raw_tp")
int on_secret(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 *words = bpf_ringbuf_reserve(&events, sizeof(struct holed), 0);

	if (!words)
		return 0;
	for (int i = 0; i < sizeof(struct holed) / sizeof(*words); i++)
		words[i] = ctx->args[0];
	bpf_ringbuf_submit(words, 0);
	return 0;
}

SEC("raw_tp")
int on_run(struct bpf_raw_tracepoint_args *ctx)
{
	struct holed *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return 0;
	event->tgid = bpf_get_current_pid_tgid() >> 32;
	event->bytes = ctx->args[0];
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

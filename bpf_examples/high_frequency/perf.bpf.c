// SPDX-License-Identifier: GPL-2.0
/* Every read of a process as an event in the perf buffer, as it was done before Linux 5.8. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct event {
	__u64 when;		/* ns after boot */
	__u32 thread;
	__u32 requested;	/* bytes: how many there were is known when it returns */
};

const struct event *unused __attribute__((unused));	/* keeps the type in the BTF */

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} events SEC(".maps");

const volatile __u32 tgid;	/* whose reads */

SEC("tracepoint/syscalls/sys_enter_read")
int on_read(struct syscall_trace_enter *ctx)
{
	__u64 who = bpf_get_current_pid_tgid();
	struct event event = {
		.when = bpf_ktime_get_ns(),
		.thread = who,
		.requested = ctx->args[2],
	};

	if (who >> 32 == tgid)
		bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* Every read of a process as an event: user space gets it all, or loses it. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct event {
	__u64 when;		/* ns after boot */
	__u32 thread;
	__u32 requested;	/* bytes: how many there were is known when it returns */
};

const struct event *unused __attribute__((unused));	/* keeps the type in the BTF */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

const volatile __u32 tgid;	/* whose reads */
__u64 lost;			/* events that found no room */

SEC("tracepoint/syscalls/sys_enter_read")
int on_read(struct syscall_trace_enter *ctx)
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
	event->when = bpf_ktime_get_ns();
	event->thread = who;
	event->requested = ctx->args[2];
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* Every read of a process counted in the kernel, and one in a hundred sent as an event. */
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

struct reads {
	__u64 count;
	__u64 requested;	/* bytes */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 10000);
	__type(key, __u32);	/* thread */
	__type(value, struct reads);
} totals SEC(".maps");

const volatile __u32 tgid;		/* whose reads */
const volatile __u32 one_in = 100;	/* how many reads there are to a sample */
__u64 lost;				/* samples that found no room */
__u64 uncounted;			/* reads of threads that found no room */

static __always_inline void sample(__u32 thread, __u32 requested)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&lost, 1);
		return;
	}
	event->when = bpf_ktime_get_ns();
	event->thread = thread;
	event->requested = requested;
	bpf_ringbuf_submit(event, 0);
}

SEC("tracepoint/syscalls/sys_enter_read")
int on_read(struct syscall_trace_enter *ctx)
{
	__u64 who = bpf_get_current_pid_tgid();
	__u32 thread = who, requested = ctx->args[2];
	struct reads zero = {}, *reads;

	if (who >> 32 != tgid)
		return 0;
	reads = bpf_map_lookup_elem(&totals, &thread);
	if (!reads) {
		bpf_map_update_elem(&totals, &thread, &zero, BPF_NOEXIST);
		reads = bpf_map_lookup_elem(&totals, &thread);
	}
	if (reads) {
		reads->count++;		/* this CPU's own: no atomics */
		reads->requested += requested;
	} else {
		__sync_fetch_and_add(&uncounted, 1);
	}
	/* A random number below 2^32 / one_in, found without a division. */
	if ((__u64)bpf_get_prandom_u32() * one_in >> 32 == 0)
		sample(thread, requested);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

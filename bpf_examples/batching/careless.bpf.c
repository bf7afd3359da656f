// SPDX-License-Identifier: GPL-2.0
/* Wrong: as in the guide, a batch counts as sent whether it found room or not. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

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

SEC("raw_tp")
int on_run(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0, count;
	struct batch *batch;
	struct event *event;

	if (bpf_get_current_pid_tgid() >> 32 != tgid)
		return 0;
	batch = bpf_map_lookup_elem(&batches, &zero);
	if (!batch)
		return 0;	/* no cover: each CPU has its element */
	count = batch->count;
	if (count >= BATCH) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	event = &batch->events[count];
	event->tgid = tgid;
	event->bytes = ctx->args[0];
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	batch->count = count + 1;
	if (count + 1 == BATCH) {
		bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, batch, sizeof(*batch));
		batch->count = 0;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

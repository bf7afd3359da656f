// SPDX-License-Identifier: GPL-2.0
/* Wrong: as in the guide, the count is compared, read again, and used: the verifier says no. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define BATCH 100	/* events */

struct event {
	__u32 tgid;
	__u32 bytes;
	char comm[TASK_COMM_LEN];
};

struct batch {
	volatile __u32 count;	/* so that the compiler reads it again, as it may */
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
	__u32 zero = 0;
	struct batch *batch = bpf_map_lookup_elem(&batches, &zero);

	if (!batch || batch->count >= BATCH)
		return 0;
	batch->events[batch->count].bytes = ctx->args[0];
	batch->count++;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

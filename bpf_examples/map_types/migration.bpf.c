// SPDX-License-Identifier: GPL-2.0
/* A time stamp per thread, in a shared and in a per-CPU hash: threads change their CPU. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u64);	/* thread id */
	__type(value, __u64);	/* when it began, in ns */
} shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 10240);
	__type(key, __u64);
	__type(value, __u64);
} percpu SEC(".maps");

__u64 shared_elapsed;
__u64 percpu_elapsed;

/* Arguments of both: thread id, time in ns. */
SEC("raw_tp")
int begin(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 thread = ctx->args[0], now = ctx->args[1];

	bpf_map_update_elem(&shared, &thread, &now, BPF_ANY);
	bpf_map_update_elem(&percpu, &thread, &now, BPF_ANY);
	return 0;
}

SEC("raw_tp")
int end(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 thread = ctx->args[0], now = ctx->args[1], *then;

	then = bpf_map_lookup_elem(&shared, &thread);
	if (then)
		shared_elapsed = now - *then;
	then = bpf_map_lookup_elem(&percpu, &thread);
	if (then)
		percpu_elapsed = now - *then;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

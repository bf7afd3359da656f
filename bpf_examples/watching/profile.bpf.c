// SPDX-License-Identifier: GPL-2.0
/* A profiler: where a process was, by address, so many times a second of its CPU time. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10000);
	__type(key, __u64);	/* instruction pointer */
	__type(value, __u64);	/* samples */
} samples SEC(".maps");

const volatile __u32 tgid;	/* whose time */
__u64 missed;			/* samples of addresses that found no room */

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	__u64 address = PT_REGS_IP(&ctx->regs), zero = 0, *count;

	if (bpf_get_current_pid_tgid() >> 32 != tgid)
		return 0;
	count = bpf_map_lookup_elem(&samples, &address);
	if (!count) {
		bpf_map_update_elem(&samples, &address, &zero, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&samples, &address);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		__sync_fetch_and_add(&missed, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

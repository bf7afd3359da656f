/* What the agents of the tests load: counts and reports a system call that hardly anybody makes. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct event {
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event);
} counted SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_sched_get_priority_max")
int watch_priority_max(void *ctx)
{
	struct event *event;
	__u32 key = 0;

	event = bpf_map_lookup_elem(&counted, &key);
	if (event) {
		__sync_fetch_and_add(&event->number, 1);
		bpf_ringbuf_output(&events, event, sizeof(*event), 0);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "openat.h"

#define PREFIX_LENGTH 32

const volatile char prefix[PREFIX_LENGTH];
__u64 lost;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

static __always_inline int matches(const char *path)
{
	for (int i = 0; i < PREFIX_LENGTH && prefix[i]; i++)
		if (path[i] != prefix[i])
			return 0;
	return 1;
}

SEC("tracepoint/syscalls/sys_enter_openat")
int on_openat(struct trace_event_raw_sys_enter *ctx)
{
	char path[PATH_LENGTH] = {};
	struct open_event *event;

	if (bpf_probe_read_user_str(path, sizeof(path), (void *)ctx->args[1]) < 0 || !matches(path))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	event->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	__builtin_memcpy(event->path, path, sizeof(path));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* What one nginx sends by TCP, in large pieces: nothing else leaves the kernel. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct event {
	__u32 tgid;
	__u32 bytes;
	char comm[TASK_COMM_LEN];
};

const struct event *unused __attribute__((unused));	/* keeps the type in the BTF */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

__u64 lost;	/* events that found no room */

const volatile __u32 tgid;		/* whose sends */
const volatile __u64 at_least = 1024;	/* bytes */

static __always_inline bool is_nginx(const char *comm)
{
	return comm[0] == 'n' && comm[1] == 'g' && comm[2] == 'i' && comm[3] == 'n' &&
	       comm[4] == 'x' && comm[5] == '\0';
}

static __always_inline int tell(__u32 bytes, const char *comm)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	event->tgid = tgid;
	event->bytes = bytes;
	__builtin_memcpy(event->comm, comm, sizeof(event->comm));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

static __always_inline int account(__u64 bytes)
{
	char comm[TASK_COMM_LEN] = {};

	/* In order of what asking costs: nothing, a call, and a call that copies. */
	if (bytes < at_least)
		return 0;
	if (bpf_get_current_pid_tgid() >> 32 != tgid)
		return 0;
	bpf_get_current_comm(comm, sizeof(comm));
	if (!is_nginx(comm))
		return 0;
	return tell(bytes, comm);
}

SEC("kprobe/tcp_sendmsg")
int BPF_KPROBE(on_call, struct sock *sk, struct msghdr *msg, size_t requested)
{
	return account(requested);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(on_return, struct sock *sk, int sent)
{
	return sent > 0 && sk->sk_protocol == IPPROTO_TCP ? account(sent) : 0;
}

/* No hook: run by BPF_PROG_RUN. Argument: bytes. */
SEC("raw_tp")
int on_run(struct bpf_raw_tracepoint_args *ctx)
{
	return account(ctx->args[0]);
}

char LICENSE[] SEC("license") = "GPL";

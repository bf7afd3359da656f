// SPDX-License-Identifier: GPL-2.0
/* What nginx sends by TCP, with functions that are called. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

const volatile __u32 tgid;	/* whose sends */
__u64 sends;
__u64 bytes;
__u64 last;			/* ns after boot */

/* The zero is compared too: nginxfoo is another program. */
static __noinline bool is_nginx(const char *comm)
{
	return comm[0] == 'n' && comm[1] == 'g' && comm[2] == 'i' && comm[3] == 'n' &&
	       comm[4] == 'x' && comm[5] == '\0';
}

static __noinline __u64 now(void)
{
	return bpf_ktime_get_ns();
}

static __always_inline int account(__u64 size)
{
	char comm[TASK_COMM_LEN] = {};

	if (bpf_get_current_pid_tgid() >> 32 != tgid)
		return 0;
	bpf_get_current_comm(comm, sizeof(comm));
	if (!is_nginx(comm))
		return 0;
	__sync_fetch_and_add(&sends, 1);
	__sync_fetch_and_add(&bytes, size);
	last = now();
	return 0;
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

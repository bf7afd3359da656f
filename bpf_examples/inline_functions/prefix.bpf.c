// SPDX-License-Identifier: GPL-2.0
/* Wrong: as in the guide, the name is compared up to its last letter, and no further. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

const volatile __u32 tgid;	/* whose sends */
__u64 sends;
__u64 bytes;

static __always_inline bool is_nginx(const char *comm)
{
	return comm[0] == 'n' && comm[1] == 'g' && comm[2] == 'i' && comm[3] == 'n' &&
	       comm[4] == 'x';
}

SEC("raw_tp")
int on_run(struct bpf_raw_tracepoint_args *ctx)
{
	char comm[TASK_COMM_LEN] = {};

	if (bpf_get_current_pid_tgid() >> 32 != tgid)
		return 0;
	bpf_get_current_comm(comm, sizeof(comm));
	if (is_nginx(comm)) {
		__sync_fetch_and_add(&sends, 1);
		__sync_fetch_and_add(&bytes, ctx->args[0]);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

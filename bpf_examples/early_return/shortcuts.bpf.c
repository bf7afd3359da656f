// SPDX-License-Identifier: GPL-2.0
/* Wrong: the guide's tests. A small pid is no system process, and 'n' is not nginx. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

__u64 by_pid;		/* runs that the first test lets through */
__u64 by_letter;	/* and those that the second does */

SEC("raw_tp")
int on_run(void *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	char comm[TASK_COMM_LEN] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	if (pid >= 1000)
		__sync_fetch_and_add(&by_pid, 1);
	if (comm[0] == 'n')
		__sync_fetch_and_add(&by_letter, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

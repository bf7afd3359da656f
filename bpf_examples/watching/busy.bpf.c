// SPDX-License-Identifier: GPL-2.0
/* Programs to be watched: one that takes time, one that takes none, and one that counts. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define STEPS 1000

const volatile __u32 tgid;	/* whose calls */
__u64 calls;
__u64 answer;	/* work that nobody uses is compiled away */

SEC("tc")
int heavy(struct __sk_buff *skb)
{
	__u64 x = skb->len;

	for (int i = 0; i < STEPS; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	answer = x;
	return 0;
}

SEC("tc")
int light(struct __sk_buff *skb)
{
	answer = skb->len;
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_getpid")
int on_getpid(void *ctx)
{
	if (bpf_get_current_pid_tgid() >> 32 == tgid)
		__sync_fetch_and_add(&calls, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* Thousandths by division: right for every number, and the dearest ALU instruction there is. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define BATCH 4096	/* numbers per run */

__u64 numbers[BATCH];
__u64 quotients[BATCH];
__u64 remainders[BATCH];

SEC("syscall")
int divide_u32(void *ctx)
{
	for (int i = 0; i < BATCH; i++) {
		__u32 n = numbers[i];

		quotients[i] = n / 1000;
		remainders[i] = n % 1000;
	}
	return 0;
}

SEC("syscall")
int divide_u64(void *ctx)
{
	for (int i = 0; i < BATCH; i++) {
		__u64 n = numbers[i];

		quotients[i] = n / 1000;
		remainders[i] = n % 1000;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

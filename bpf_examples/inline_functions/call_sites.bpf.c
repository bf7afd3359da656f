// SPDX-License-Identifier: GPL-2.0
/* One function used sixteen times. FUNCTION says how: inlined, static, or global. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#ifndef FUNCTION
#define FUNCTION static __always_inline
#endif

__u32 answer;

/* One-at-a-time hashing of the four bytes of a word. */
FUNCTION __u32 mix(__u32 hash, __u32 word)
{
	for (int i = 0; i < 4; i++) {
		hash += word >> 8 * i & 0xff;
		hash += hash << 10;
		hash ^= hash >> 6;
	}
	return hash;
}

#define FOUR_TIMES(a, b, c, d) mix(mix(mix(mix(hash, word + a), word + b), word + c), word + d)

SEC("raw_tp")
int sixteen(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 word = ctx->args[0], hash = 0;

	hash = FOUR_TIMES(0, 1, 2, 3);
	hash = FOUR_TIMES(4, 5, 6, 7);
	hash = FOUR_TIMES(8, 9, 10, 11);
	hash = FOUR_TIMES(12, 13, 14, 15);
	answer = hash;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

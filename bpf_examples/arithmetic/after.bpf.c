// SPDX-License-Identifier: GPL-2.0
/* Thousandths by multiply and shift: exact, because the reciprocal has bits enough. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define BATCH 4096	/* numbers per run */
#define STEPS 4294968	/* multiples of 1000 below 2^32, 0 among them */

__u64 numbers[BATCH];
__u64 quotients[BATCH];
__u64 remainders[BATCH];
__u64 mistakes;

/* 274877907 is 2^38 / 1000 rounded up; its error stays below one step up to 2^32. */
static __always_inline __u32 thousandth_u32(__u32 n)
{
	return n * 274877907ULL >> 38;
}

/* The upper half of a 128-bit product, which eBPF has no instruction for. */
static __always_inline __u64 multiply_high(__u64 a, __u64 b)
{
	__u64 a0 = (__u32)a, a1 = a >> 32, b0 = (__u32)b, b1 = b >> 32;
	__u64 middle = a1 * b0 + (a0 * b0 >> 32);

	return a1 * b1 + (middle >> 32) + ((a0 * b1 + (__u32)middle) >> 32);
}

/* n / 8 / 125: the shift first leaves 61 bits, for which a 64-bit reciprocal is exact. */
static __always_inline __u64 thousandth_u64(__u64 n)
{
	return multiply_high(n >> 3, 0x20c49ba5e353f7cfULL) >> 4;
}

SEC("syscall")
int divide_u32(void *ctx)
{
	for (int i = 0; i < BATCH; i++) {
		__u32 n = numbers[i], quotient = thousandth_u32(n);

		quotients[i] = quotient;
		remainders[i] = n - quotient * 1000;
	}
	return 0;
}

SEC("syscall")
int divide_u64(void *ctx)
{
	for (int i = 0; i < BATCH; i++) {
		__u64 n = numbers[i], quotient = thousandth_u64(n);

		quotients[i] = quotient;
		remainders[i] = n - quotient * 1000;
	}
	return 0;
}

static long check_step(__u32 step, void *unused)
{
	__u32 first = step * 1000;	/* of the 1000 numbers whose quotient is step */

	mistakes += thousandth_u32(first) != step;
	mistakes += step && thousandth_u32(first - 1) != step - 1;
	return 0;
}

/*
 * A quotient never falls as its number grows. So if it is right at both ends of every
 * step, it is right for all 2^32 numbers.
 */
SEC("syscall")
int prove_u32(void *ctx)
{
	bpf_loop(STEPS, check_step, NULL, 0);
	mistakes += thousandth_u32(~0U) != STEPS - 1;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/* A thousand steps of arithmetic, of array look-ups, of helper calls and of hash look-ups. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define STEPS 1024	/* a run */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STEPS);
	__type(key, __u32);
	__type(value, __u64);
} array_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEPS);
	__type(key, __u32);
	__type(value, __u64);
} hash_map SEC(".maps");

__u64 answer;	/* of the last run: work that nobody uses is compiled away */

/* Marsaglia's xorshift: six instructions a step, each waiting for the one before. */
SEC("tc")
int alu(struct __sk_buff *skb)
{
	__u64 x = skb->mark;

	for (int i = 0; i < STEPS; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	answer = x;
	return 0;
}

static __always_inline __u64 sum_of(void *map)
{
	__u64 sum = 0;

	for (int i = 0; i < STEPS; i++) {
		__u32 key = i;
		__u64 *value = bpf_map_lookup_elem(map, &key);

		if (value)
			sum += *value;
	}
	return sum;
}

SEC("tc")
int array(struct __sk_buff *skb)
{
	answer = skb->mark + sum_of(&array_map);
	return 0;
}

/* A helper that has hardly anything to do: no route, no realm. */
SEC("tc")
int helper(struct __sk_buff *skb)
{
	__u64 sum = skb->mark;

	for (int i = 0; i < STEPS; i++)
		sum += bpf_get_route_realm(skb);
	answer = sum;
	return 0;
}

SEC("tc")
int hash(struct __sk_buff *skb)
{
	answer = skb->mark + sum_of(&hash_map);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

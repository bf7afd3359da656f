// SPDX-License-Identifier: GPL-2.0
/* Two ways to count what is new: the first count as the value loses the other CPU's. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define KEYS 1024	/* a run, from the packet's mark on */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64 * KEYS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

/* Wrong: of two CPUs that find nothing, one inserts its 1, and the other's is lost. */
SEC("tc")
int insert_one(struct __sk_buff *skb)
{
	for (int i = 0; i < KEYS; i++) {
		__u64 one = 1, *count;
		__u32 key = skb->mark + i;

		count = bpf_map_lookup_elem(&counts, &key);
		if (count)
			__sync_fetch_and_add(count, 1);
		else
			bpf_map_update_elem(&counts, &key, &one, BPF_NOEXIST);
	}
	return 0;
}

SEC("tc")
int insert_zero(struct __sk_buff *skb)
{
	for (int i = 0; i < KEYS; i++) {
		__u64 zero = 0, *count;
		__u32 key = skb->mark + i;

		count = bpf_map_lookup_elem(&counts, &key);
		if (!count) {
			bpf_map_update_elem(&counts, &key, &zero, BPF_NOEXIST);
			count = bpf_map_lookup_elem(&counts, &key);
		}
		if (count)
			__sync_fetch_and_add(count, 1);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

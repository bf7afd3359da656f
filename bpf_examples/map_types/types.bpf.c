// SPDX-License-Identifier: GPL-2.0
/* The same look-ups and updates on five types of map, a thousand a run. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define KEYS 1024	/* a run */
#define ROOM (4 * KEYS)	/* an LRU hash that is nearly full evicts already */

__u64 sum;	/* of the values found: work that nobody uses is compiled away */

/* Written once for all types, so that the map is all that differs. */
#define PROGRAMS_FOR(map, map_type)					\
struct {								\
	__uint(type, map_type);						\
	__uint(max_entries, ROOM);					\
	__type(key, __u32);						\
	__type(value, __u64);						\
} map SEC(".maps");							\
									\
SEC("tc")								\
int map##_lookup(struct __sk_buff *skb)					\
{									\
	sum = 0;							\
	for (int i = 0; i < KEYS; i++) {				\
		__u32 key = i;						\
		__u64 *value = bpf_map_lookup_elem(&map, &key);		\
									\
		if (value)						\
			sum += *value;					\
	}								\
	return 0;							\
}									\
									\
SEC("tc")								\
int map##_update(struct __sk_buff *skb)					\
{									\
	for (int i = 0; i < KEYS; i++) {				\
		__u32 key = i;						\
		__u64 value = skb->mark + i;				\
									\
		bpf_map_update_elem(&map, &key, &value, BPF_ANY);	\
	}								\
	return 0;							\
}

PROGRAMS_FOR(array, BPF_MAP_TYPE_ARRAY)
PROGRAMS_FOR(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY)
PROGRAMS_FOR(hash, BPF_MAP_TYPE_HASH)
PROGRAMS_FOR(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH)
PROGRAMS_FOR(lru_hash, BPF_MAP_TYPE_LRU_HASH)

char LICENSE[] SEC("license") = "GPL";

// What is dumped, and the limit of dumping it: bpf_for_each_map_elem() into a mmapable array.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#ifndef KIND
#define KIND BPF_MAP_TYPE_HASH
#endif
#ifndef ENTRIES
#define ENTRIES 1
#endif

struct amounts {
	__u64 count;
	__u64 bytes;
};

struct {
	__uint(type, KIND);
	__uint(max_entries, ENTRIES);
	__type(key, __u32);
	__type(value, struct amounts);
} dumped SEC(".maps");

#ifdef LIMIT
struct row {
	__u32 key;
	struct amounts value;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ENTRIES);
	__type(key, __u32);
	__type(value, struct row);
} rows SEC(".maps");

static long copy(struct bpf_map *map, __u32 *key, struct amounts *value, __u32 *count)
{
	struct row *row = bpf_map_lookup_elem(&rows, count);

	if (!row)
		return 1;
	row->key = *key;
	row->value = *value;
	*count += 1;
	return 0;
}

SEC("syscall")
int dump(void *ctx)
{
	__u32 count = 0;

	bpf_for_each_map_elem(&dumped, copy, &count, 0);
	return count;
}
#endif

char LICENSE[] SEC("license") = "GPL";

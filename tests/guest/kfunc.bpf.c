// A kfunc of 6.1 and what it needs; apart, because libbpf looks for it even when nobody loads it.

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 only = 0;
__u64 found;

struct key;
struct bpf_key {
    struct key *key;
    bool has_ref;
};

extern struct bpf_key *bpf_lookup_system_key(__u64 id) __ksym;
extern void bpf_key_put(struct bpf_key *key) __ksym;

SEC("lsm.s/bpf")
int asking_for_a_key(void *ctx)
{
    struct bpf_key *key;

    if (bpf_get_current_pid_tgid() >> 32 != only)
        return 0;
    key = bpf_lookup_system_key(0);
    if (key) {
        found++;
        bpf_key_put(key);
    }
    return 0;
}

/* Tells which packets of one network namespace the kernel drops, and why. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define HEAD 192

struct fate {
	__u64 time; /* nanoseconds since boot */
	__u32 reason;
	__u32 ifindex;
	__u32 incoming; /* the interface that received it, or 0 */
	__u32 length;   /* of the frame */
	__u32 size;     /* bytes of it in head */
	__u32 padding;
	__u8 head[HEAD];
	char function[56];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
	__type(value, struct fate);
} fates SEC(".maps");

const volatile __u64 namespace = 0; /* net->net_cookie */
__u64 untold = 0;                   /* drops that found no room */

SEC("tp_btf/kfree_skb")
int tell(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct net_device *dev = BPF_CORE_READ(skb, dev);
	static const char symbol[] = "%ps";
	__u64 place = ctx[1];
	unsigned char *data, *mac;
	struct fate *fate;
	__u32 size;

	if (!dev || BPF_CORE_READ(dev, nd_net.net, net_cookie) != namespace ||
	    !BPF_CORE_READ(skb, len))
		return 0;
	fate = bpf_ringbuf_reserve(&fates, sizeof(*fate), 0);
	if (!fate) {
		__sync_fetch_and_add(&untold, 1);
		return 0;
	}
	data = BPF_CORE_READ(skb, data);
	mac = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, mac_header);
	if (BPF_CORE_READ(skb, mac_header) == 0xffff || mac > data)
		mac = data;
	fate->time = bpf_ktime_get_ns();
	fate->reason = ctx[2];
	fate->ifindex = BPF_CORE_READ(dev, ifindex);
	fate->incoming = BPF_CORE_READ(skb, skb_iif);
	fate->padding = 0;
	fate->length = BPF_CORE_READ(skb, len) + (data - mac);
	size = BPF_CORE_READ(skb, len) - BPF_CORE_READ(skb, data_len) + (data - mac);
	if (size > HEAD)
		size = HEAD;
	fate->size = size;
	if (size)
		bpf_probe_read_kernel(fate->head, size, mac);
	bpf_snprintf(fate->function, sizeof(fate->function), symbol, &place, sizeof(place));
	bpf_ringbuf_submit(fate, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

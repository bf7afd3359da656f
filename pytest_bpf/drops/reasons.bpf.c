/*
 * Counts dropped packets by network namespace, reason and kernel function: packets of the stack at
 * skb:kfree_skb, those that tc takes at skb:consume_skb, frames of native XDP at the tracepoints of
 * xdp:.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct drop {
	__u64 namespace; /* net->net_cookie: never used twice, unlike its inode */
	__u64 location;
	__u32 reason;
	__u32 padding;
};

struct drops {
	__u64 packets;
	char function[56]; /* the symbol of the location */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct drop);
	__type(value, struct drops);
} drops SEC(".maps");

const volatile __u64 home = 0;        /* the namespace that is never counted: the process's own */
const volatile bool has_rx_sk = true; /* the tracepoint names the receiving socket (Linux 6.11) */
const volatile bool has_place = true; /* skb:consume_skb names the caller (Linux 6.3) */
bool counting = false;
__u64 uncounted = 0; /* drops that found no room in the map */

static __always_inline __u64 of_socket(struct sock *sk)
{
	return sk ? BPF_CORE_READ(sk, __sk_common.skc_net.net, net_cookie) : 0;
}

static __always_inline __u64 of_device(struct net_device *dev)
{
	return dev ? BPF_CORE_READ(dev, nd_net.net, net_cookie) : 0;
}

static __always_inline void add(struct drop *key, const struct drops *first, __u64 packets)
{
	struct drops *value = bpf_map_lookup_elem(&drops, key);

	if (!value) {
		bpf_map_update_elem(&drops, key, first, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&drops, key);
	}
	__sync_fetch_and_add(value ? &value->packets : &uncounted, packets);
}

SEC("tp_btf/kfree_skb")
int count(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct drop key = {.location = ctx[1], .reason = (__u32)ctx[2]};
	static const char symbol[] = "%ps";
	struct drops first = {};

	if (!counting)
		return 0;
	/* Attaching native XDP to a veth makes and frees an empty one (napi_get_frags_check). */
	if (!BPF_CORE_READ(skb, len) && !BPF_CORE_READ(skb, protocol))
		return 0;
	if (has_rx_sk)
		key.namespace = of_socket((struct sock *)ctx[3]);
	if (!key.namespace)
		key.namespace = of_device(BPF_CORE_READ(skb, dev));
	if (!key.namespace)
		key.namespace = of_socket(BPF_CORE_READ(skb, sk));
	if (!key.namespace || key.namespace == home)
		return 0;

	if (!bpf_map_lookup_elem(&drops, &key))
		bpf_snprintf(first.function, sizeof(first.function), symbol, &key.location, 8);
	add(&key, &first, 1);
	return 0;
}

/* Frames of native XDP have no drop reason of the kernel's; these are ours. */
#define XDP_DEVMAP 0xffff0001
#define XDP_CPUMAP 0xffff0002

static __always_inline int count_frames(__u64 namespace, __u32 reason, int frames,
					const struct drops *tracepoint)
{
	struct drop key = {.namespace = namespace, .reason = reason};

	if (counting && frames > 0 && namespace && namespace != home)
		add(&key, tracepoint, frames);
	return 0;
}

/*
 * The frames that devmaps took in the present poll of a NAPI. A broadcast for which no entry is
 * valid frees its frame and says nothing: it is one that was taken and not transmitted.
 */
struct poll {
	__u64 namespace;
	__s64 taken;
	__s64 transmitted; /* or counted as drops; each copy of a broadcast */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct poll);
} polls SEC(".maps");

static __always_inline struct poll *this_poll(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&polls, &first);
}

static __always_inline bool has_native_program(struct net_device *dev)
{
	return BPF_CORE_READ(dev, xdp_state[XDP_MODE_DRV].prog) ||
	       BPF_CORE_READ(dev, xdp_state[XDP_MODE_DRV].link);
}

/* Frames that bpf_redirect() or a devmap has taken and that the device did not transmit. */
SEC("tp_btf/xdp_devmap_xmit")
int count_devmap(__u64 *ctx)
{
	static const struct drops tracepoint = {.function = "xdp_devmap_xmit"};
	__u64 namespace = of_device((struct net_device *)ctx[0]);
	struct poll *poll = this_poll();

	if (poll && counting)
		poll->transmitted += (int)ctx[2] + (int)ctx[3];
	if (!namespace)
		namespace = of_device((struct net_device *)ctx[1]);
	return count_frames(namespace, XDP_DEVMAP, (int)ctx[3], &tracepoint);
}

static __always_inline void count_untransmitted(void)
{
	static const struct drops tracepoint = {.function = "xdp_redirect"};
	struct poll *poll = this_poll(), none = {};

	if (!poll)
		return;
	if (poll->taken > poll->transmitted)
		count_frames(poll->namespace, XDP_DEVMAP, poll->taken - poll->transmitted,
			     &tracepoint);
	*poll = none;
}

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} cpumaps SEC(".maps"); /* the namespace of the frames in a cpumap, by the map's id */

SEC("tp_btf/xdp_redirect")
int note_redirect(__u64 *ctx)
{
	struct net_device *dev = (struct net_device *)ctx[0];
	__u32 type = (__u32)ctx[4], map_id = (__u32)ctx[5];
	struct poll *poll = this_poll();
	__u64 namespace, *known;

	if (!counting)
		return 0;
	namespace = of_device(dev);
	if (poll && (type == BPF_MAP_TYPE_DEVMAP || type == BPF_MAP_TYPE_DEVMAP_HASH) &&
	    has_native_program(dev)) {
		poll->namespace = namespace;
		poll->taken++;
	}
	if (type != BPF_MAP_TYPE_CPUMAP)
		return 0;
	known = bpf_map_lookup_elem(&cpumaps, &map_id);
	if (!known || *known != namespace)
		bpf_map_update_elem(&cpumaps, &map_id, &namespace, BPF_ANY);
	return 0;
}

static const struct drops cpumap_enqueue = {.function = "xdp_cpumap_enqueue"};

static __always_inline int count_cpumap(__u32 map_id, int frames, const struct drops *tracepoint)
{
	__u64 *namespace = bpf_map_lookup_elem(&cpumaps, &map_id);

	return namespace ? count_frames(*namespace, XDP_CPUMAP, frames, tracepoint) : 0;
}

SEC("tp_btf/xdp_cpumap_enqueue")
int count_cpumap_enqueue(__u64 *ctx)
{
	return count_cpumap((__u32)ctx[0], (int)ctx[2], &cpumap_enqueue);
}

/*
 * Generic XDP reports a full queue at once, after xdp_cpumap_enqueue, and frees the packet at
 * skb:kfree_skb: it is taken back here. Native XDP never has an error of a cpumap's queue here.
 */
SEC("tp_btf/xdp_redirect_err")
int take_back_cpumap(__u64 *ctx)
{
	__u32 map_id = (__u32)ctx[5];
	__u64 namespace, *known;

	if (!counting || (__u32)ctx[4] != BPF_MAP_TYPE_CPUMAP || (int)ctx[3] != -28 /* ENOSPC */)
		return 0;
	known = bpf_map_lookup_elem(&cpumaps, &map_id);
	if (known && *known != home) {
		struct drop key = {.namespace = *known, .reason = XDP_CPUMAP};

		add(&key, &cpumap_enqueue, -1);
	} else if (!known) {
		namespace = of_device((struct net_device *)ctx[0]);
		bpf_map_update_elem(&cpumaps, &map_id, &namespace, BPF_ANY);
	}
	return 0;
}

SEC("tp_btf/xdp_cpumap_kthread")
int count_cpumap_kthread(__u64 *ctx)
{
	static const struct drops tracepoint = {.function = "xdp_cpumap_kthread"};
	struct xdp_cpumap_stats *by_program = (struct xdp_cpumap_stats *)ctx[4];
	int frames = (int)ctx[2] + (int)BPF_CORE_READ(by_program, drop);

	return count_cpumap((__u32)ctx[0], frames, &tracepoint);
}

/*
 * TC_ACT_STOLEN, TC_ACT_QUEUED and TC_ACT_TRAP end a packet as if it had arrived, and so do a
 * broadcast of generic XDP to a devmap without a valid entry and a dummy device. Other callers of
 * consume_skb() have packets that arrived.
 */
#define TC_STOLEN 0xffff0003
#define DUMMY_DEVICE 0xffff0004

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} takers SEC(".maps"); /* by the address of a call: the reason of the packets that end there, or 0 */

extern const void consume_skb __ksym;

static const char place_format[] = "%ps";
static const char ingress[] = "sch_handle_ingress", ingress_caller[] = "__netif_receive_skb_core";
static const char egress[] = "sch_handle_egress", egress_caller[] = "__dev_queue_xmit";
static const char broadcast[] = "dev_map_redirect_multi", dummy[] = "dummy_xmit";

#define STARTS_WITH(text, prefix) (!bpf_strncmp(text, sizeof(prefix) - 1, prefix))

static __always_inline __u32 reason_of(__u64 place)
{
	__u32 *known = bpf_map_lookup_elem(&takers, &place), reason = 0;
	char name[32] = {};

	if (known)
		return *known;
	bpf_snprintf(name, sizeof(name), place_format, &place, sizeof(place));
	if (STARTS_WITH(name, ingress) || STARTS_WITH(name, ingress_caller) ||
	    STARTS_WITH(name, egress) || STARTS_WITH(name, egress_caller))
		reason = TC_STOLEN;
	else if (STARTS_WITH(name, broadcast))
		reason = XDP_DEVMAP;
	else if (STARTS_WITH(name, dummy))
		reason = DUMMY_DEVICE;
	bpf_map_update_elem(&takers, &place, &reason, BPF_ANY);
	return reason;
}

static __always_inline __u64 caller_of_consume_skb(void *ctx)
{
	__u64 start = (__u64)&consume_skb, stack[8] = {};

	bpf_get_stack(ctx, stack, sizeof(stack), 0);
	for (int i = 0; i < 7; i++)
		if (stack[i] - start < 256)
			return stack[i + 1];
	return 0;
}

SEC("tp_btf/consume_skb")
int count_taken(__u64 *ctx)
{
	static const struct drops tracepoint = {.function = "consume_skb"};
	__u64 namespace;
	__u32 reason;

	if (!counting)
		return 0;
	namespace = of_device(BPF_CORE_READ((struct sk_buff *)ctx[0], dev));
	if (!namespace || namespace == home)
		return 0;
	reason = reason_of(has_place ? ctx[1] : caller_of_consume_skb(ctx));
	return reason ? count_frames(namespace, reason, 1, &tracepoint) : 0;
}

/*
 * A veth puts the frames of XDP_TX into its peer's ring, and wakes the peer up only when that has a
 * native program too: else they wait there until something else wakes it up.
 */
struct waiting {
	__u64 namespace; /* that of the device that sent them */
	__s64 frames;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct waiting);
} waiting SEC(".maps"); /* by the address of the peer's napi_struct */

static __always_inline struct net_device *peer_of_veth(struct net_device *dev)
{
	__u64 private = (__u64)dev + ((bpf_core_type_size(struct net_device) + 31) & ~31ULL);
	struct net_device *peer = 0; /* the first member of struct veth_priv */
	char kind[8] = {};

	bpf_probe_read_kernel_str(kind, sizeof(kind), BPF_CORE_READ(dev, rtnl_link_ops, kind));
	if (kind[0] == 'v' && kind[1] == 'e' && kind[2] == 't' && kind[3] == 'h' && !kind[4])
		bpf_probe_read_kernel(&peer, sizeof(peer), (void *)private);
	return peer;
}

/* Of the peer's queues, which lie in the list last to first, the one for this CPU. */
static __always_inline __u64 napi_for_this_cpu(struct net_device *peer)
{
	__u32 queues = BPF_CORE_READ(peer, real_num_rx_queues);
	struct list_head *entry = BPF_CORE_READ(peer, napi_list.next);
	__u32 steps;

	if (!queues)
		return 0;
	steps = queues - 1 - bpf_get_smp_processor_id() % queues;
	for (__u32 i = 0; i < 64 && i < steps; i++)
		entry = BPF_CORE_READ(entry, next);
	return (__u64)entry - bpf_core_field_offset(struct napi_struct, dev_list);
}

SEC("tp_btf/xdp_bulk_tx")
int count_waiting(__u64 *ctx)
{
	struct net_device *dev = (struct net_device *)ctx[0], *peer;
	struct waiting first = {.frames = (int)ctx[1]}, *known;
	__u64 napi;

	if (!counting || first.frames <= 0)
		return 0;
	peer = peer_of_veth(dev);
	if (!peer || has_native_program(peer))
		return 0;
	first.namespace = of_device(dev);
	napi = napi_for_this_cpu(peer);
	known = bpf_map_lookup_elem(&waiting, &napi);
	if (known)
		__sync_fetch_and_add(&known->frames, first.frames);
	else
		bpf_map_update_elem(&waiting, &napi, &first, BPF_NOEXIST);
	return 0;
}

SEC("tp_btf/napi_poll")
int end_of_poll(__u64 *ctx)
{
	struct waiting *known;
	__u64 napi = ctx[0];
	int work = (int)ctx[1], budget = (int)ctx[2];

	if (!counting)
		return 0;
	count_untransmitted();
	known = bpf_map_lookup_elem(&waiting, &napi);
	if (known && (work < budget || known->frames <= work))
		bpf_map_delete_elem(&waiting, &napi);
	else if (known)
		__sync_fetch_and_add(&known->frames, -work);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define LAST (~0ULL)

struct event {
	__u64 n;
	__u64 at;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} perf SEC(".maps");

const struct event *unused __attribute__((unused));

__u64 next, failed;

static long to_ring(__u64 i, void *ctx)
{
	struct event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);

	if (!event) {
		failed++;
		return 0;
	}
	event->n = next++;
	event->at = i;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

static long to_perf(__u64 i, void *ctx)
{
	struct event event = { .n = next, .at = i };

	if (bpf_perf_event_output(*(void **)ctx, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event)))
		failed++;
	else
		next++;
	return 0;
}

SEC("raw_tp")
int fill_ring(struct bpf_raw_tracepoint_args *ctx)
{
	bpf_loop(ctx->args[0], to_ring, 0, 0);
	return 0;
}

SEC("raw_tp")
int fill_perf(struct bpf_raw_tracepoint_args *ctx)
{
	bpf_loop(ctx->args[0], to_perf, &ctx, 0);
	return 0;
}

SEC("raw_tp")
int end_ring(void *ctx)
{
	struct event event = { .n = LAST };

	return bpf_ringbuf_output(&ring, &event, sizeof(event), BPF_RB_FORCE_WAKEUP);
}

SEC("raw_tp")
int end_perf(void *ctx)
{
	struct event event = { .n = LAST };

	return bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event));
}

char LICENSE[] SEC("license") = "GPL";

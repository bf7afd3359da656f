#include <uapi/linux/bpf.h>

struct event {
	u64 n;
	u64 at;
};

BPF_RINGBUF_OUTPUT(ring, 1);
BPF_PERF_OUTPUT(perf);

int shown(struct bpf_raw_tracepoint_args *ctx)
{
	struct event event = {};

	ring.ringbuf_output(&event, sizeof(event), 0);
	perf.perf_submit(ctx, &event, sizeof(event));
	return 0;
}

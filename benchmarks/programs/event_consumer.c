/* libbpf's own consumers, driven by lines on the standard input: see event_peers.py.
 * Usage: event_consumer ring|perf MAP_FD PAGES */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <bpf/libbpf.h>

struct event {
	unsigned long long n, at;
};

#define LAST (~0ULL)

static unsigned long long events, sum, ended;

static int on_ring(void *ctx, void *data, size_t size)
{
	const struct event *event = data;

	if (event->n == LAST) {
		ended = 1;
		return 0;
	}
	events++;
	sum += event->n;
	return 0;
}

static void on_perf(void *ctx, int cpu, void *data, __u32 size)
{
	on_ring(ctx, data, size);
}

static void on_lost(void *ctx, int cpu, __u64 count)
{
}

static unsigned long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	struct ring_buffer *ring = NULL;
	struct perf_buffer *perf = NULL;
	char line[16];

	if (argc != 4)
		return 2;
	if (!strcmp(argv[1], "ring"))
		ring = ring_buffer__new(atoi(argv[2]), on_ring, NULL, NULL);
	else
		perf = perf_buffer__new(atoi(argv[2]), atoi(argv[3]), on_perf, on_lost, NULL, NULL);
	if (!ring && !perf) {
		fprintf(stderr, "no consumer: %s\n", strerror(errno));
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		unsigned long long begin = now();

		events = sum = ended = 0;
		if (!strcmp(line, "drain\n")) {
			ring ? ring_buffer__consume(ring) : perf_buffer__consume(perf);
		} else {
			while (!ended)
				ring ? ring_buffer__poll(ring, 100) : perf_buffer__poll(perf, 100);
		}
		printf("%llu %llu %llu\n", now() - begin, events, sum);
		fflush(stdout);
	}
	return 0;
}

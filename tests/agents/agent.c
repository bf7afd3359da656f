/* A small agent on libbpf: loads an object, attaches it, prints its events until it is told to end.
 *
 * agent OBJECT [WAY] [PATH], where a WAY of misbehaving is one of
 *   ignore   SIGTERM is ignored
 *   pin      its program is pinned to PATH and stays
 *   fork     a child of it stays
 *   idle     it loads and does not attach
 *   die      it ends right after attaching, with status 3
 *   slow     it reads its events every 200 ms only
 */
#include <bpf/libbpf.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;

static void stop(int signal)
{
	(void)signal;
	stopping = 1;
}

static int print(void *ctx, void *data, size_t size)
{
	(void)ctx;
	(void)size;
	printf("event %llu\n", *(unsigned long long *)data);
	return 0;
}

int main(int argc, char **argv)
{
	const char *way = argc > 2 ? argv[2] : "";
	struct sigaction action = {.sa_handler = !strcmp(way, "ignore") ? SIG_IGN : stop};
	struct ring_buffer *events = NULL;
	struct bpf_program *program;
	struct bpf_object *object;
	struct bpf_map *ring;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGTERM, &action, NULL);
	object = bpf_object__open_file(argv[1], NULL);
	if (!object || bpf_object__load(object)) {
		fprintf(stderr, "cannot load %s\n", argv[1]);
		return 1;
	}
	bpf_object__for_each_program(program, object) {
		if (strcmp(way, "idle") && !bpf_program__attach(program))
			return 2;
		if (!strcmp(way, "pin") && bpf_program__pin(program, argv[3]))
			return 4;
	}
	ring = bpf_object__find_map_by_name(object, "events");
	if (ring)
		events = ring_buffer__new(bpf_map__fd(ring), print, NULL, NULL);
	printf("ready\n");
	if (!strcmp(way, "die"))
		return 3;
	if (!strcmp(way, "fork") && fork() == 0)
		for (;;)
			pause();
	while (!stopping) {
		if (!events) {
			pause();
		} else if (!strcmp(way, "slow")) {
			usleep(200000);
			ring_buffer__consume(events);
		} else {
			ring_buffer__poll(events, -1);
		}
	}
	printf("bye\n");
	return 0;
}

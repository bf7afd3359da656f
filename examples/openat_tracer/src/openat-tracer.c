#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "openat.h"

static volatile sig_atomic_t ended;

static void end(int signal)
{
	ended = signal;
}

static int show(void *context, void *data, size_t size)
{
	const struct open_event *event = data;

	(void)context;
	if (size < sizeof(*event))
		return 0;
	printf("%u %s %s\n", event->pid, event->comm, event->path);
	fflush(stdout);
	return 0;
}

static struct bpf_object *open_object(const char *prefix)
{
	char file[PATH_MAX + 32], place[PATH_MAX] = {};
	struct bpf_object *object;
	struct bpf_map *map;
	char *constants;
	size_t size;

	if (readlink("/proc/self/exe", place, sizeof(place) - 1) < 0)
		return NULL;
	snprintf(file, sizeof(file), "%s/openat.bpf.o", dirname(place));
	object = bpf_object__open_file(file, NULL);
	if (!object)
		return NULL;
	bpf_object__for_each_map(map, object) {
		if (!strstr(bpf_map__name(map), ".rodata"))
			continue;
		constants = (char *)bpf_map__initial_value(map, &size);
		strncpy(constants, prefix, size - 1);
	}
	return object;
}

int main(int count, char **words)
{
	struct ring_buffer *ring;
	struct bpf_object *object;
	struct bpf_link *link;

	if (count != 2) {
		fprintf(stderr, "usage: openat-tracer PREFIX\n");
		return 2;
	}
	signal(SIGTERM, end);
	signal(SIGINT, end);
	object = open_object(words[1]);
	if (!object || bpf_object__load(object)) {
		fprintf(stderr, "openat-tracer: cannot load: %s\n", strerror(errno));
		return 1;
	}
	link = bpf_program__attach(bpf_object__find_program_by_name(object, "on_openat"));
	ring = ring_buffer__new(bpf_object__find_map_fd_by_name(object, "events"), show, NULL, NULL);
	if (!link || !ring) {
		fprintf(stderr, "openat-tracer: cannot attach: %s\n", strerror(errno));
		return 1;
	}
	while (!ended)
		ring_buffer__poll(ring, 100);
	ring_buffer__free(ring);
	bpf_link__destroy(link);
	bpf_object__close(object);
	return 0;
}

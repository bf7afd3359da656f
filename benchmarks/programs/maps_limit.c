// Dumps a map as fast as C can: for each number on standard input, as often, and answers with the
// median of the processor time, in milliseconds, and the number of elements.
// Usage: maps_limit batch ID | maps_limit for_each ID OBJECT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static __u32 max_entries;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

// A per-CPU map has a value for each possible CPU.
static size_t copies(__u32 type)
{
	int per_cpu = type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY;

	return per_cpu ? libbpf_num_possible_cpus() : 1;
}

static __u32 batch(int fd, size_t key_size, size_t value_size)
{
	static char *keys, *values;
	__u32 total = 0, count, position = 0;
	int error;

	if (!keys) {
		keys = malloc(max_entries * key_size);
		values = malloc(max_entries * value_size);
	}
	do {
		count = max_entries - total;
		error = bpf_map_lookup_batch(fd, total ? &position : NULL, &position,
					     keys + total * key_size, values + total * value_size,
					     &count, NULL);
		if (error && errno != ENOENT)
			fail("bpf_map_lookup_batch");
		total += count;
	} while (!error && total < max_entries);
	return total;
}

static int load(int fd, const char *path)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_map *rows;

	if (!object)
		fail(path);
	rows = bpf_object__find_map_by_name(object, "rows");
	bpf_map__set_max_entries(rows, max_entries);
	if (bpf_map__reuse_fd(bpf_object__find_map_by_name(object, "dumped"), fd) ||
	    bpf_object__load(object))
		fail("loading");
	if (mmap(NULL, (size_t)max_entries * 24, PROT_READ, MAP_SHARED, bpf_map__fd(rows), 0) ==
	    MAP_FAILED)
		fail("mmap");
	return bpf_program__fd(bpf_object__find_program_by_name(object, "dump"));
}

static __u32 run(int program)
{
	LIBBPF_OPTS(bpf_test_run_opts, options);

	if (bpf_prog_test_run_opts(program, &options))
		fail("running");
	return options.retval;
}

static int ascending(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;

	return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
	struct bpf_map_info info = {};
	__u32 size = sizeof(info), total = 0;
	int fd, program = -1;
	char line[16];
	double start, *taken = NULL;
	int times, i;

	if (argc < 3)
		return 2;
	fd = bpf_map_get_fd_by_id(atoi(argv[2]));
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size))
		fail("opening the map");
	max_entries = info.max_entries;
	if (argc > 3)
		program = load(fd, argv[3]);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		times = atoi(line);
		taken = realloc(taken, times * sizeof(*taken));
		for (i = 0; i < times; i++) {
			start = now();
			if (program >= 0)
				total = run(program);
			else
				total = batch(fd, info.key_size, info.value_size * copies(info.type));
			taken[i] = now() - start;
		}
		qsort(taken, times, sizeof(*taken), ascending);
		printf("%f %u\n", taken[times / 2], total);
		fflush(stdout);
	}
	return 0;
}

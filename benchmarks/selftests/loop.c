/* The kernel's own way, without a framework: load each annotated program of an object alone.
 *
 * Reads lines "OBJECT PROGRAM MODE LOG_LEVEL FLAGS AUXILIARY,... BTF" and prints for each the error
 * of the load, and the return value of a test run where the program was loaded ("-" where it was
 * not). In the mode "u" a program is loaded without the capabilities for BPF.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOG_SIZE (2 << 20)

static char log_buffer[LOG_SIZE];

static int quiet(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return 0;
}

static char *content_of(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	char *content;

	if (!file)
		exit(2);
	fseek(file, 0, SEEK_END);
	*size = ftell(file);
	rewind(file);
	content = malloc(*size);
	if (fread(content, 1, *size, file) != *size)
		exit(2);
	fclose(file);
	return content;
}

static int is_auxiliary(const char *name, const char *list)
{
	size_t length = strlen(name);
	const char *at;

	for (at = list; (at = strstr(at, name)); at += length)
		if ((at == list || at[-1] == ',') && (!at[length] || at[length] == ','))
			return 1;
	return 0;
}

static void set_capabilities(int privileged)
{
	static const int names[] = { CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF };
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2];
	size_t at;

	if (syscall(SYS_capget, &header, sets))
		exit(3);
	for (at = 0; at < sizeof(names) / sizeof(*names); at++) {
		unsigned int *effective = &sets[names[at] / 32].effective;
		unsigned int permitted = sets[names[at] / 32].permitted;
		unsigned int bit = 1u << names[at] % 32;

		*effective = privileged ? *effective | (permitted & bit) : *effective & ~bit;
	}
	if (syscall(SYS_capset, &header, sets))
		exit(3);
}

static int needs_no_privilege(struct bpf_map *map)
{
	switch (bpf_map__type(map)) {
	case BPF_MAP_TYPE_HASH:
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_HASH_OF_MAPS:
		return !(bpf_map__map_flags(map) & BPF_F_ZERO_SEED);
	case BPF_MAP_TYPE_ARRAY:
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
	case BPF_MAP_TYPE_CGROUP_ARRAY:
	case BPF_MAP_TYPE_CGROUP_STORAGE:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
	case BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE:
	case BPF_MAP_TYPE_PERF_EVENT_ARRAY:
	case BPF_MAP_TYPE_PROG_ARRAY:
	case BPF_MAP_TYPE_RINGBUF:
	case BPF_MAP_TYPE_USER_RINGBUF:
		return 1;
	default:
		return 0;
	}
}

static void load(char *content, size_t size, const char *wanted, int privileged, int level,
		 int flags, const char *auxiliary, const char *btf)
{
	LIBBPF_OPTS(bpf_object_open_opts, open, .btf_custom_path = *btf == '-' ? NULL : btf);
	struct bpf_object *object = bpf_object__open_mem(content, size, &open);
	struct bpf_program *program, *chosen = NULL;
	char in[64] = {}, out[256] = {};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = in, .data_size_in = sizeof(in),
		    .data_out = out, .data_size_out = sizeof(out), .repeat = 1);
	struct bpf_map *map;
	int code;

	if (!object) {
		printf("%d -\n", errno);
		return;
	}
	bpf_object__for_each_program(program, object) {
		const char *name = bpf_program__name(program);

		if (!strcmp(name, wanted))
			chosen = program;
		bpf_program__set_autoload(program, program == chosen || is_auxiliary(name, auxiliary));
	}
	log_buffer[0] = 0;
	bpf_program__set_log_buf(chosen, log_buffer, sizeof(log_buffer));
	bpf_program__set_log_level(chosen, level);
	bpf_program__set_flags(chosen, bpf_program__flags(chosen) | flags);
	if (!privileged) {
		bpf_object__for_each_map(map, object)
			bpf_map__set_autocreate(map, needs_no_privilege(map));
		set_capabilities(0);
	}
	code = -bpf_object__load(object);
	if (!privileged)
		set_capabilities(1);
	if (code) {
		printf("%d -\n", code);
	} else if (bpf_program__type(chosen) == BPF_PROG_TYPE_SYSCALL ||
		   bpf_prog_test_run_opts(bpf_program__fd(chosen), &options)) {
		printf("0 -\n");
	} else {
		printf("0 %d\n", (int)options.retval);
	}
	bpf_object__close(object);
}

int main(void)
{
	char path[4096], program[512], mode[8], auxiliary[4096], btf[4096], before[4096] = "";
	char *content = NULL;
	size_t size = 0;
	int level, flags;

	libbpf_set_print(quiet);
	while (scanf("%4095s %511s %7s %d %d %4095s %4095s", path, program, mode, &level, &flags,
		     auxiliary, btf) == 7) {
		if (strcmp(path, before)) {
			free(content);
			content = content_of(path, &size);
			strcpy(before, path);
		}
		load(content, size, program, mode[0] == 'p', level, flags, auxiliary, btf);
	}
	return 0;
}

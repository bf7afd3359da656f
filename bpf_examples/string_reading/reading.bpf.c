// SPDX-License-Identifier: GPL-2.0
/* Four ways to read a string of user space, each at the same two hooks. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define SIZE 256
#define CHUNK 16

const volatile __u32 tid;	/* whose strings */
__u8 string[SIZE];		/* the last one, and what lies behind it */
long result;			/* of reading it: negative for an error */

/* A helper call for each byte, until there is a zero. */
static __always_inline long loop(const char *user)
{
	for (int i = 0; i < SIZE; i++) {
		long error = bpf_probe_read_user(&string[i], 1, user + i);

		if (error)
			return error;
		if (!string[i])
			return i + 1;
	}
	string[SIZE - 1] = 0;
	return SIZE;
}

/* Sixteen helper calls, whatever there is. */
static __always_inline long unrolled(const char *user)
{
#pragma unroll
	for (int i = 0; i < SIZE / CHUNK; i++) {
		long error = bpf_probe_read_user(&string[i * CHUNK], CHUNK, user + i * CHUNK);

		if (error)
			return error;
	}
	string[SIZE - 1] = 0;
	return SIZE;
}

/* One call for all the room there is, and what lies behind the string comes along. */
static __always_inline long whole(const char *user)
{
	long error = bpf_probe_read_user(string, SIZE, user);

	string[SIZE - 1] = 0;
	return error ? error : SIZE;
}

/* One call that knows what a string is: stops at its zero, writes one in any case. */
static __always_inline long str(const char *user)
{
	return bpf_probe_read_user_str(string, SIZE, user);
}

/* Written once for all ways, so that the reading is all that differs. */
#define PROGRAMS_FOR(read)						\
SEC("tracepoint/syscalls/sys_enter_openat")				\
int read##_openat(struct syscall_trace_enter *ctx)			\
{									\
	if ((__u32)bpf_get_current_pid_tgid() == tid)			\
		result = read((const char *)ctx->args[1]);		\
	return 0;							\
}									\
									\
SEC("kprobe/vfs_read")							\
int BPF_KPROBE(read##_vfs_read, struct file *file, const char *buffer)	\
{									\
	if ((__u32)bpf_get_current_pid_tgid() == tid)			\
		result = read(buffer);					\
	return 0;							\
}

PROGRAMS_FOR(loop)
PROGRAMS_FOR(unrolled)
PROGRAMS_FOR(whole)
PROGRAMS_FOR(str)

char LICENSE[] SEC("license") = "GPL";

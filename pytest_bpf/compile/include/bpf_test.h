/* SPDX-License-Identifier: MIT
 *
 * Tests of BPF programs in C, which pytest-bpf collects and runs.
 *
 *	#include "vmlinux.h"
 *	#include <bpf/bpf_helpers.h>
 *	#include <bpf_test.h>
 *
 *	TEST_PROGRAM(int, drop_udp, struct xdp_md *ctx);
 *	#include "drop_udp.bpf.c"
 *
 *	SEC("xdp") __test __test_packet("udp_frame(dport=53)")
 *	int drops_dns(struct xdp_md *ctx)
 *	{
 *		TEST_EQUAL(drop_udp(ctx), XDP_DROP);
 *		return 0;
 *	}
 *
 * A test passes when it reports at least one check and none of them fails.
 */
#ifndef BPF_TEST_H
#define BPF_TEST_H

/* A program under test: declare it before its definition, and tests can call it. */
#define TEST_PROGRAM(type, name, ...) __attribute__((always_inline)) type name(__VA_ARGS__)

/* -- what a test is given ----------------------------------------------------------------- */

#define __bpf_test_tag(text) __attribute__((btf_decl_tag("bpf_test" text)))

#define __test __bpf_test_tag("")
/* "udp_frame(dport=53)", "0a 0b 0c" (hex), "pcap:file.pcap#1" (counted from 1), "fixture:name" */
#define __test_packet(source) __bpf_test_tag(":packet=" source)
/* "mark=5, ingress_ifindex=1": members of the context */
#define __test_context(members) __bpf_test_tag(":context=" members)
/* "port=53": one run of the test with these global variables; several give several tests */
#define __test_param(variables) __bpf_test_tag(":param=" variables)
/* the name of a fixture that gives a function; it is called with the loaded object */
#define __test_setup(fixture) __bpf_test_tag(":setup=" fixture)
/* "verified_insns<=400": a limit of the marker bpf_budget */
#define __test_budget(limit) __bpf_test_tag(":budget=" limit)
/* the name of a marker */
#define __test_mark(name) __bpf_test_tag(":mark=" name)

/* -- what a test reports ------------------------------------------------------------------ */

#define BPF_TEST_REPORTS 32

enum bpf_test_kind {
	BPF_TEST_CHECK = 1,
	BPF_TEST_EQUAL = 2,
	BPF_TEST_LOG = 3,
	BPF_TEST_SKIP = 4,
	BPF_TEST_UNSIGNED = 0x100,	/* with one of these: a value is an unsigned 64-bit one */
};

struct bpf_test_report {
	unsigned int kind;
	unsigned int line;
	long long left;
	long long right;
	char file[64];
	char text[128];
};

struct bpf_test_results {
	unsigned int checks;	/* how many checks were made */
	unsigned int reports;	/* how many reports there were, kept or not */
	struct bpf_test_report report[BPF_TEST_REPORTS];
};

struct bpf_test_results bpf_test_results __attribute__((section(".data.bpf_test")));

#define __bpf_test_copy(to, from)                                                                 \
	__builtin_memcpy(to, from, sizeof(from) < sizeof(to) ? sizeof(from) : sizeof(to) - 1)

#define __bpf_test_unsigned(value)                                                                \
	_Generic((value), unsigned long: BPF_TEST_UNSIGNED,                                       \
		 unsigned long long: BPF_TEST_UNSIGNED, default: 0)

#define __bpf_test_report(kind_, left_, right_, text_)                                            \
	do {                                                                                      \
		unsigned int at_ = bpf_test_results.reports, place_ = at_;                        \
		if ((kind_) == BPF_TEST_SKIP && at_ >= BPF_TEST_REPORTS)                          \
			place_ = BPF_TEST_REPORTS - 1;                                            \
		if (place_ < BPF_TEST_REPORTS) {                                                  \
			struct bpf_test_report *to_ = &bpf_test_results.report[place_];           \
			to_->kind = (kind_);                                                      \
			to_->line = __LINE__;                                                     \
			to_->left = (long long)(left_);                                           \
			to_->right = (long long)(right_);                                         \
			__bpf_test_copy(to_->file, __FILE_NAME__);                                \
			__bpf_test_copy(to_->text, text_);                                        \
		}                                                                                 \
		bpf_test_results.reports = at_ + 1;                                               \
	} while (0)

/* Fails the test when the condition is false; the test goes on. */
#define TEST_CHECK(condition)                                                                     \
	({                                                                                        \
		_Bool true_ = !!(condition);                                                      \
		bpf_test_results.checks++;                                                        \
		if (!true_)                                                                       \
			__bpf_test_report(BPF_TEST_CHECK, 0, 0, #condition);                      \
		true_;                                                                            \
	})

/* Fails the test when the values differ, and shows both; the test goes on. */
#define TEST_EQUAL(left, right)                                                                   \
	({                                                                                        \
		long long a_ = (long long)(left), b_ = (long long)(right);                        \
		bpf_test_results.checks++;                                                        \
		if (a_ != b_)                                                                     \
			__bpf_test_report(BPF_TEST_EQUAL | __bpf_test_unsigned(left) |            \
					  __bpf_test_unsigned(right),                             \
					  a_, b_, #left " == " #right);                           \
		a_ == b_;                                                                         \
	})

/* Shows a text, and a value, when the test fails. */
#define TEST_LOG(text, value)                                                                     \
	__bpf_test_report(BPF_TEST_LOG | __bpf_test_unsigned(value), value, 0, text)

/* Skips the test; write `return TEST_SKIP("why");`. */
#define TEST_SKIP(why)                                                                            \
	({                                                                                        \
		__bpf_test_report(BPF_TEST_SKIP, 0, 0, why);                                      \
		0;                                                                                \
	})

#endif

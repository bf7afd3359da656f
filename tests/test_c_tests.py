"""Tests written in C: the three forms, collected and run by pytest as they are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.kernel.btf.decl_tags import decl_tags
from pytest_bpf.plugin.collect import cilium
from pytest_bpf.plugin.collect.expectation import (
    AnnotationError,
    Pattern,
    mismatch,
    read_annotations,
)
from pytest_bpf.traffic.capture import pcap
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_bpf.loader import Loader

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf_test.h>
char LICENSE[] SEC("license") = "GPL";
"""

FILTER = (
    HEAD
    + """
TEST_PROGRAM(int, drop_udp, struct xdp_md *ctx);
const volatile __u16 port = 53;
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u16);
	__type(value, __u64);
} counted SEC(".maps");

SEC("xdp") int drop_udp(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u16 dest;
	__u64 *count;

	if ((void *)(udp + 1) > (void *)(long)ctx->data_end || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	dest = bpf_ntohs(udp->dest);
	count = bpf_map_lookup_elem(&counted, &dest);
	if (count)
		__sync_fetch_and_add(count, 1);
	return dest == port ? XDP_DROP : XDP_PASS;
}
"""
)

OWN = (
    FILTER
    + """
SEC("xdp") __test __test_packet("udp_frame(dport=53)")
int drops_dns(struct xdp_md *ctx)
{
	TEST_EQUAL(drop_udp(ctx), XDP_DROP);
	return 0;
}

SEC("xdp") __test __test_packet("udp_frame(dport=54)")
int expects_too_much(struct xdp_md *ctx)
{
	TEST_LOG("the port", port);
	TEST_EQUAL(drop_udp(ctx), XDP_DROP);
	TEST_CHECK(port == 54);
	return 0;
}

SEC("xdp") __test __test_packet("udp_frame(dport=80)")
__test_param("port=80") __test_param("port=81")
int drops_its_port(struct xdp_md *ctx)
{
	TEST_EQUAL(drop_udp(ctx) == XDP_DROP, port == 80);
	return 0;
}

SEC("xdp") __test __test_packet("fixture:dns") __test_setup("count_dns") __test_mark("slow")
int counts(struct xdp_md *ctx)
{
	__u16 dns = 53;
	__u64 *count;

	drop_udp(ctx);
	count = bpf_map_lookup_elem(&counted, &dns);
	TEST_CHECK(count && *count == 8);
	return 0;
}

SEC("xdp") __test __test_packet("pcap:dns.pcap#2")
int reads_a_capture(struct xdp_md *ctx)
{
	TEST_EQUAL(drop_udp(ctx), XDP_DROP);
	return 0;
}

SEC("tc") __test __test_packet("udp_frame()") __test_context("mark=0x10")
int has_a_context(struct __sk_buff *ctx)
{
	TEST_EQUAL(ctx->mark, 16);
	return 0;
}

SEC("xdp") __test __test_packet("udp_frame(dport=53)") __test_budget("verified_insns<=3")
int is_too_expensive(struct xdp_md *ctx)
{
	TEST_EQUAL(drop_udp(ctx), XDP_DROP);
	return 0;
}

SEC("syscall") __test
int skips(void *ctx)
{
	return TEST_SKIP("not on this machine");
}

SEC("syscall") __test
int says_nothing(void *ctx)
{
	return 0;
}
"""
)

CONFTEST = """
import pytest
from pytest_bpf.traffic.packets import udp_frame

@pytest.fixture
def dns():
    return udp_frame(dport=53)

@pytest.fixture
def count_dns():
    def fill(obj):
        obj.maps["counted"][53] = 7
    return fill
"""


@pytest.fixture
def _privilege(bpf: Loader) -> None:
    """Skip where nothing can be loaded; an inner session would count its own skips."""


def a_capture(path: Path) -> None:
    frames = udp_frame(dport=1), udp_frame(dport=53)
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    records = (struct.pack("=IIII", 0, 0, len(f), len(f)) + f for f in frames)
    path.write_bytes(head + b"".join(records))


def session(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rA", *arguments)


@pytest.fixture
def own_form(pytester: pytest.Pytester, _privilege: None) -> pytest.RunResult:
    """One session over the file of the own form; skipped where nothing can be loaded."""
    (pytester.path / "filter.test.bpf.c").write_text(OWN)
    a_capture(pytester.path / "dns.pcap")
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nmarkers = slow: takes long\n")
    return session(pytester)


def test_the_own_form_reports_what_its_checks_find(own_form: pytest.RunResult) -> None:
    own_form.assert_outcomes(passed=6, failed=3, skipped=1)
    text = own_form.stdout.str()
    assert "drop_udp(ctx) == XDP_DROP: 2 != 1" in text
    assert "port == 54 is false" in text
    assert "the port: 53 (0x35)" in text
    assert "reported nothing" in text
    assert "not on this machine" in text


@pytest.mark.usefixtures("_privilege")
def test_tests_in_c_are_chosen_as_all_tests_are(pytester: pytest.Pytester) -> None:
    (pytester.path / "filter.test.bpf.c").write_text(OWN)
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nmarkers = slow: takes long\n")
    session(pytester, "-k", "drops_its_port").assert_outcomes(passed=2, deselected=8)
    session(pytester, "-m", "slow").assert_outcomes(passed=1, deselected=9)
    one = "filter.test.bpf.c::drops_its_port[port=81]"
    session(pytester, one).assert_outcomes(passed=1)
    session(pytester, "-n2", "-k", "drops").assert_outcomes(passed=3)


VALUES = """
enum sense { BACK = -1, FORTH = 1 } sense;
__be32 address;
char name[8];
__u64 most;
SEC("syscall") __test __test_param("sense=BACK, address=10.0.0.1, name=abc")
int has_typed_values(void *ctx)
{
	TEST_EQUAL(sense, BACK);
	TEST_EQUAL(address, bpf_htonl(0x0a000001));
	TEST_EQUAL(name[1], 'b');
	return 0;
}
SEC("syscall") __test __test_param("most=0xfffffffffffffff0")
int shows_unsigned_values(void *ctx)
{
	TEST_LOG("the most", most);
	TEST_EQUAL(most, 5);
	TEST_EQUAL(sense - 1, 0);
	return 0;
}
SEC("syscall") __test
int skips_here(void *ctx)
{
	return TEST_SKIP("not here");
}
SEC("syscall") __test
int skips_when_all_reports_are_taken(void *ctx)
{
	for (int number = 0; number < 2 * BPF_TEST_REPORTS; number++)
		TEST_LOG("number", number);
	return TEST_SKIP("not any more");
}
"""


@pytest.mark.usefixtures("_privilege")
def test_values_have_their_types(pytester: pytest.Pytester) -> None:
    (pytester.path / "values.test.bpf.c").write_text(HEAD + VALUES)
    result = session(pytester, "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "*the most: 18446744073709551600 (0xfffffffffffffff0)",
            "*most == 5: 18446744073709551600 (0xfffffffffffffff0) != 5",
            "*sense - 1 == 0: -1 != 0",
            "SKIPPED*values.test.bpf.c:*: not here",
        ]
    )


@pytest.mark.usefixtures("_privilege")
@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ('__bpf_test_tag(":pakcet=00")', "did you mean 'packet'"),
        ('__test_packet("zz")', "is no packet"),
        ('__test_packet("udp_frame(dport=)")', "cannot be built"),
        ('__test_packet("udp_frame(ports=1)")', "cannot be built"),
        ('__test_packet("pcap:none.pcap")', "No such file"),
        ('__test_context("mark")', "is no 'name=value'"),
        ('__test_param("port=")', "is no 'name=value'"),
        ('__test_param("port=x")', "has no global variable 'port'"),
        ('__test_budget("verified_insns")', "is no 'metric<=limit'"),
        ('__test_packet("00") __test_packet("01")', "__test_packet 2 times"),
    ],
)
def test_a_wrong_annotation_fails_its_test(
    pytester: pytest.Pytester, annotation: str, message: str
) -> None:
    (pytester.path / "wrong.test.bpf.c").write_text(
        HEAD
        + 'SEC("xdp") __test __test_packet("udp_frame()") int right(struct xdp_md *ctx)\n'
        + "{ TEST_CHECK(1); return 0; }\n"
        + f'SEC("xdp") __test {annotation} int wrong(struct xdp_md *ctx)\n'
        + "{ TEST_CHECK(1); return 0; }\n"
    )
    result = session(pytester)
    result.assert_outcomes(passed=1, failed=1)
    assert message in result.stdout.str()


def test_a_file_that_does_not_compile_is_one_failing_test(pytester: pytest.Pytester) -> None:
    (pytester.path / "broken.test.bpf.c").write_text(HEAD + "int nothing(void) { return x; }\n")
    pytester.makepyfile("def test_other(): pass")
    result = session(pytester)
    result.assert_outcomes(passed=1, failed=1)
    assert "undeclared identifier 'x'" in result.stdout.str()


def test_files_of_programs_alone_are_left_alone(pytester: pytest.Pytester) -> None:
    (pytester.path / "filter.bpf.c").write_text(FILTER)
    assert session(pytester).ret is pytest.ExitCode.NO_TESTS_COLLECTED


TAG = '#define __tag(text) __attribute__((btf_decl_tag("comment:" text)))\n'

ANNOTATED = (
    HEAD
    + TAG
    + """
SEC("socket") __tag("test_expect_success") __tag("test_retval=7")
int returns_seven(void *ctx) { return 7; }

SEC("socket") __tag("test_expect_success") __tag("test_retval=8")
int returns_another(void *ctx) { return 7; }

SEC("socket") __tag("test_expect_failure") __tag("test_expect_msg=0=invalid mem access")
int reads_where_it_must_not(void *ctx) { return *(int *)((long)bpf_ktime_get_ns()); }

SEC("socket") __tag("test_expect_failure") __tag("test_expect_msg=0=invalid bananas access")
int is_refused_otherwise(void *ctx) { return *(int *)((long)bpf_ktime_get_ns()); }

SEC("socket") __tag("test_expect_failure")
int is_loaded_after_all(void *ctx) { return 0; }

SEC("socket") __tag("test_expect_sucess")
int is_misspelt(void *ctx) { return 0; }

SEC("socket") __tag("test_expect_success") __tag("test_arch=RISCV64")
int is_for_another_machine(void *ctx) { return 0; }

SEC("socket") __tag("test_auxiliary")
int helps(void *ctx) { return 0; }
"""
)


@pytest.mark.usefixtures("_privilege")
def test_the_kernel_s_annotations(pytester: pytest.Pytester) -> None:
    (pytester.path / "verifier_some.c").write_text(ANNOTATED)
    pytester.makeini("[pytest]\nbpf_c_tests = verifier_*.c\n")
    result = session(pytester)
    result.assert_outcomes(passed=2, failed=4, skipped=1)
    text = result.stdout.str()
    assert "returns_another: it returned 7, not 8" in text
    assert "'invalid bananas access' is not there; the nearest line is" in text
    assert "is_loaded_after_all: it was loaded, and a failure is expected" in text
    assert "did you mean 'test_expect_success'" in text


READS_A_MAP = (
    HEAD
    + TAG
    + """
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} answers SEC(".maps");

SEC("socket") __tag("test_expect_success") __tag("test_retval=42")
int reads_the_answer(void *ctx)
{
	__u32 zero = 0, *answer = bpf_map_lookup_elem(&answers, &zero);

	return answer ? *answer : -1;
}
"""
)


@pytest.mark.usefixtures("_privilege")
def test_maps_are_filled_before_an_annotated_program_runs(pytester: pytest.Pytester) -> None:
    (pytester.path / "verifier_map.test.bpf.c").write_text(READS_A_MAP)
    session(pytester).assert_outcomes(failed=1)
    pytester.makeconftest(
        "import pytest\n\n@pytest.fixture\ndef bpf_before_run():\n"
        "    def fill(maps):\n        maps['answers'][0] = 42\n    return fill\n"
    )
    session(pytester).assert_outcomes(passed=1)


CILIUM = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 8192);
	__uint(max_entries, 1);
} suite_result_map SEC(".maps");

SEC("tc/test/grows/pktgen") int grows_pktgen(struct __sk_buff *ctx)
{
	bpf_skb_change_tail(ctx, 200, 0);
	return 0;
}

SEC("tc/test/grows/setup") int grows_setup(struct __sk_buff *ctx)
{
	bpf_skb_change_tail(ctx, 300, 0);
	ctx->mark = 42;
	return 5;
}

SEC("tc/test/grows/check") int grows_check(struct __sk_buff *ctx)
{
	__u32 zero = 0, *verdict = (void *)(long)ctx->data;
	char *out = bpf_map_lookup_elem(&suite_result_map, &zero);

	if (!out || (void *)(verdict + 1) > (void *)(long)ctx->data_end)
		return 0;
	/* one test: its name, its status, and a log line with a number */
	out[0] = 10; out[1] = 0x80 | 26; out[2] = 0;
	out[3] = 10; out[4] = 4; out[5] = 's'; out[6] = 'u'; out[7] = 'b'; out[8] = 0;
	out[9] = 16; out[10] = *verdict == 5 && ctx->mark == 42 && ctx->len == 304 ? 1 : 2;
	out[11] = 26; out[12] = 16;
	out[13] = 10; out[14] = 5; out[15] = 'n'; out[16] = '='; out[17] = '%'; out[18] = 'u';
	out[20] = 17; out[21] = ctx->len & 0xff; out[22] = ctx->len >> 8;
	return out[10];
}

SEC("tc/test/jumps/jump") int jumps_jump(struct __sk_buff *ctx) { return 7; }

SEC("tc/test/jumps/check") int jumps_check(struct __sk_buff *ctx)
{
	__u32 *verdict = (void *)(long)ctx->data;

	if ((void *)(verdict + 1) > (void *)(long)ctx->data_end)
		return 0;
	return *verdict == 7 ? 1 : 2;
}

SEC("tc_of_our_own") int unknown_section(struct __sk_buff *ctx) { return 0; }

SEC("tc/test/incomplete/setup") int incomplete(struct __sk_buff *ctx) { return 0; }

SEC("tc/test/fails/check") int fails(struct __sk_buff *ctx) { return 2; }

SEC("tc/test/skips/check") int skips(struct __sk_buff *ctx) { return 3; }

SEC("tc/test/strange/check") int strange(struct __sk_buff *ctx) { return 9; }
"""


@pytest.mark.usefixtures("_privilege")
def test_a_miniature_of_cilium_s_form(pytester: pytest.Pytester) -> None:
    (pytester.path / "mini.test.bpf.c").write_text(CILIUM)
    result = session(pytester)
    result.assert_outcomes(passed=2, failed=3, skipped=1)
    text = result.stdout.str()
    assert "incomplete: has SETUP, and no CHECK" in text
    assert "strange: CHECK returned 9, which is no status" in text


def test_results_of_cilium_s_form_are_decoded() -> None:
    log = b"\x0a\x05n=%u\0" + b"\x11" + (304).to_bytes(8, "little")
    test = b"\x0a\x04sub\0\x10\x02" + b"\x1a" + bytes([len(log)]) + log
    message = b"\x0a" + bytes([0x80 | len(test), 0]) + test + bytes(100)
    results = cilium.read(2, message)
    assert results.status == "FAIL"
    assert results.tests == (cilium.SubTest("sub", "FAIL", ("n=304",)),)
    with pytest.raises(cilium.CiliumTestError, match="damaged"):
        cilium.read(1, b"\x0a\xff\xff\xff\xff")


def test_patterns_follow_one_another() -> None:
    text = "0: R1=ctx()\n1: exit\nprocessed 2 insns\n"
    assert mismatch(text, [Pattern("exit"), Pattern("processed {{[0-9]+}} insns")]) is None
    assert "after the one before it" in str(mismatch(text, [Pattern("exit"), Pattern("R1=ctx")]))
    assert mismatch(text, [Pattern("R1"), Pattern("exit", next_line=True)]) is None
    wrong = mismatch(text, [Pattern("R1"), Pattern("processed", next_line=True)])
    assert wrong == "'processed' is on line 3, not on line 2"


@pytest.mark.parametrize("counter", ["", "17:"])
def test_annotations_with_and_without_numbering(counter: str) -> None:
    notes = read_annotations(
        [
            f"comment:{counter}test_expect_failure",
            f"comment:{counter}test_expect_msg=3=R1 {{{{min|max}}}} value",
            f"comment:{counter}test_expect_success_unpriv",
            f"comment:{counter}test_prog_flags=BPF_F_TEST_STATE_FREQ",
            f"comment:{counter}test_retval=0x10",
        ]
    )
    assert notes is not None
    assert notes.privileged is not None
    assert notes.privileged.failure
    assert notes.privileged.retval == 16
    assert notes.privileged.messages == (Pattern("R1 {{min|max}} value"),)
    assert notes.unprivileged is not None
    assert not notes.unprivileged.failure
    assert notes.flags == 8


@pytest.mark.parametrize(
    "tags",
    [
        ["comment:test_expect_failure", "comment:test_expect_success"],
        ["comment:test_log_level=many"],
        ["comment:test_jited=0=nop"],
        ["comment:test_arch=VAX"],
        ["comment:test_prog_flags=BPF_F_NONE"],
    ],
)
def test_annotations_that_cannot_be_meant(tags: list[str]) -> None:
    with pytest.raises(AnnotationError):
        read_annotations(tags)


def test_functions_without_annotations_are_no_tests() -> None:
    assert read_annotations(["bpf_test", "comment:something else"]) is None


def test_a_damaged_btf_is_one_sentence() -> None:
    from pytest_bpf.errors import LoadError

    for raw in (b"", b"\x9f\xeb\x01", b"\x9f\xeb\x01\x00" + b"\xff" * 40, bytes(64)):
        with pytest.raises(LoadError, match="the BTF is damaged"):
            decl_tags(raw)


def test_a_capture_that_is_none(tmp_path: Path) -> None:
    good = tmp_path / "good.pcap"
    a_capture(good)
    assert pcap.read(good)[1] == udp_frame(dport=53)
    for content in (b"", b"text" * 20, good.read_bytes()[:-3], good.read_bytes()[:45]):
        wrong = tmp_path / "wrong.pcap"
        wrong.write_bytes(content)
        with pytest.raises(ValueError, match=r"no pcap file|cut off"):
            pcap.read(wrong)

"""Tests written in C that are wrong: each is one sentence, and the others run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.test_c_tests import CILIUM, HEAD, session

if TYPE_CHECKING:
    from pytest_bpf.loader import Loader

IMPATIENT = "from pytest_bpf.plugin.collect import patience\npatience.SECONDS = 0.3\n"
"""A conftest.py with a limit that a test need not wait for."""

TAKES_LONG = """
static long nothing(__u64 at, void *context) { return 0; }

static long again(__u64 at, void *context)
{
	bpf_loop(1 << 23, nothing, NULL, 0);
	return 0;
}
"""

RUNS_LONG = (
    HEAD
    + TAKES_LONG
    + """
SEC("tc") __test __test_packet("udp_frame()") int takes_long(struct __sk_buff *ctx)
{
	bpf_loop(60, again, NULL, 0);
	TEST_CHECK(1);
	return 0;
}

SEC("tc") __test __test_packet("udp_frame()") int is_short(struct __sk_buff *ctx)
{
	TEST_CHECK(1);
	return 0;
}

SEC("tc/test/hangs/setup") int hangs_setup(struct __sk_buff *ctx)
{
	bpf_loop(60, again, NULL, 0);
	return 0;
}

SEC("tc/test/hangs/check") int hangs_check(struct __sk_buff *ctx) { return 1; }

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 64);
	__uint(max_entries, 1);
} suite_result_map SEC(".maps");
"""
)


@pytest.fixture
def _privilege(bpf: Loader) -> None:
    """Skip where nothing can be loaded; an inner session would count its own skips."""


@pytest.mark.bpf_requires(kernel=">=5.17", helper="bpf_loop")
@pytest.mark.usefixtures("_privilege")
def test_a_program_that_takes_too_long_fails_and_the_others_run(pytester: pytest.Pytester) -> None:
    (pytester.path / "long.test.bpf.c").write_text(RUNS_LONG)
    pytester.makeconftest(IMPATIENT)
    result = session(pytester, "-k", "takes_long or is_short")
    result.assert_outcomes(passed=1, failed=1, deselected=1)
    assert "takes_long has been running for 0.3 s and still does" in result.stdout.str()
    result = session(pytester, "-k", "hangs")
    result.assert_outcomes(failed=1, deselected=2)
    assert "SETUP of hangs has been running for 0.3 s and still does" in result.stdout.str()


WITHOUT_AN_ARRAY = CILIUM.replace("BPF_MAP_TYPE_ARRAY", "BPF_MAP_TYPE_HASH")
WITHOUT_A_MAP = CILIUM.replace("suite_result_map", "another_map")
NOT_A_MESSAGE = CILIUM.replace("out[0] = 10; out[1] = 0x80 | 26;", "out[0] = 11; out[1] = 1;")
ANOTHER_STATUS = CILIUM.replace("304 ? 1 : 2;", "304 ? 9 : 2;").replace(
    "return out[10]", "return 1"
)


@pytest.mark.usefixtures("_privilege")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (WITHOUT_AN_ARRAY, "'suite_result_map' is of type hash, and must be an array"),
        (WITHOUT_A_MAP, "there is no map 'suite_result_map'"),
        (NOT_A_MESSAGE, "the results are damaged"),
        (ANOTHER_STATUS, "sub: 9 is no status: it is 0 to 3"),
    ],
)
def test_results_that_are_none(pytester: pytest.Pytester, source: str, message: str) -> None:
    (pytester.path / "wrong.test.bpf.c").write_text(source)
    result = session(pytester, "-k", "grows")
    result.assert_outcomes(failed=1, deselected=5)
    assert message in result.stdout.str()


@pytest.mark.usefixtures("_privilege")
def test_a_check_that_fails_without_a_pktgen_says_which_packet_it_got(
    pytester: pytest.Pytester,
) -> None:
    (pytester.path / "alone.test.bpf.c").write_text(CILIUM)
    text = session(pytester, "-k", "fails").stdout.str()
    assert "it has no PKTGEN: its packet is 3520 bytes of 0" in text


@pytest.mark.usefixtures("_privilege")
def test_an_object_that_is_refused_is_a_sentence_for_each_of_its_tests(
    pytester: pytest.Pytester,
) -> None:
    refused = 'SEC("nothing/of/ours") int odd(void *ctx) { return 0; }\n'
    (pytester.path / "refused.test.bpf.c").write_text(CILIUM + refused)
    result = session(pytester, "-k", "fails or skips")
    result.assert_outcomes(failed=2, deselected=4)
    text = result.stdout.str()
    assert "program 'odd' (nothing/of/ours): its section says no program type" in text
    assert "pytest_bpf/plugin" not in text


@pytest.mark.usefixtures("_privilege")
def test_a_file_that_does_not_compile_leaves_the_others_alone(pytester: pytest.Pytester) -> None:
    (pytester.path / "broken.test.bpf.c").write_text(HEAD + "int nothing(void) { return x; }\n")
    (pytester.path / "good.test.bpf.c").write_text(
        HEAD
        + 'SEC("xdp") __test __test_packet("udp_frame()") int good(struct xdp_md *ctx)'
        + "{ TEST_CHECK(1); return 0; }\n"
    )
    result = session(pytester)
    result.assert_outcomes(passed=1, failed=1)
    assert "broken.test.bpf.c:" in result.stdout.str()
    assert "undeclared identifier 'x'" in result.stdout.str()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing/*.c", "'nothing/[*].c' names no file in "),
        ("/nothing/*.c", "'/nothing/[*].c' names no file in /"),
        ("**a.c", "'[*][*]a.c' is no pattern: "),
    ],
)
def test_a_pattern_that_names_no_file(
    pytester: pytest.Pytester, pattern: str, message: str
) -> None:
    pytester.makepyfile("def test_x(): pass")
    pytester.makeini(f"[pytest]\nbpf_c_tests = {pattern}\n")
    result = pytester.runpytest("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: bpf_c_tests: {message}*"])


def test_an_absolute_pattern_names_files(pytester: pytest.Pytester) -> None:
    (pytester.path / "nothing.c").write_text("int nothing;\n")
    pytester.makeini(f"[pytest]\nbpf_c_tests = {pytester.path}/n*.c\n")
    result = pytester.runpytest("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED, "a file of programs is left alone"

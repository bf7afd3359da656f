"""The kernel's annotations: what each says, and what a test that has it does."""

from __future__ import annotations

import errno
import platform
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.plugin.collect.expectation import (
    ARCHITECTURES,
    POINTER_VALUES,
    AnnotationError,
    Pattern,
    mismatch,
    read_annotations,
)
from tests.test_c_tests import HEAD, TAG, session

if TYPE_CHECKING:
    from pytest_bpf.loader import Loader

HERE = next(name for name, machine in ARCHITECTURES.items() if machine == platform.machine())

PROGRAMS = (
    HEAD
    + TAG
    + f"""
SEC("socket") __tag("test_expect_success") __tag("test_arch={HERE}")
__tag("test_jited=0=func #0:") __tag("test_jited=1={{{{^}}}}0:\\t")
int has_machine_code(void *ctx) {{ return 0; }}

SEC("socket") __tag("test_expect_success") __tag("test_arch={HERE}") __tag("test_jited=2=bananas")
int has_another_code(void *ctx) {{ return 0; }}

SEC("socket") __tag("test_expect_success") __tag("test_arch=RISCV64") __tag("test_arch={HERE}")
__tag("test_jited=3=func #0:") __tag("test_arch=s390x") __tag("test_jited=4=bananas")
int has_code_of_each_machine(void *ctx) {{ return 0; }}

SEC("socket") __tag("test_expect_success") __tag("load_mode=no_jited")
int is_for_the_interpreter(void *ctx) {{ return 0; }}

SEC("socket") __tag("test_expect_success") __tag("load_mode=jited") __tag("load_mode=no_jited")
int is_for_both(void *ctx) {{ return 0; }}

SEC("socket") __tag("test_expect_success") __tag("test_kconfig=CONFIG_OF_NOBODY=y")
int needs_an_option(void *ctx) {{ return 0; }}

SEC("tc") __tag("test_expect_success") __tag("test_retval=0xbadcafe")
int returns_a_pointer(void *ctx) {{ return 7; }}

SEC("socket") __tag("test_description=no expectation at all")
int is_loaded(void *ctx) {{ return 0; }}

SEC("xdp") __tag("test_expect_success") __tag("test_retval=2") __tag("test_linear_size=32")
int has_no_parts(struct xdp_md *ctx) {{ return 2; }}

SEC("socket") __tag("test_expect_failure_unpriv") __tag("test_caps_unpriv=39|38")
int is_refused_to_others(void *ctx) {{ return 0; }}

SEC("socket") __tag("test_expect_success") __tag("test_log_level=2")
__tag("test_expect_msg=5=0: ") __tag("test_expect_not_msg=6=exit") __tag("test_expect_msg=7=exit")
__tag("test_expect_not_msg=8=bananas")
int says_it_in_order(void *ctx) {{ return 0; }}

SEC("socket") __tag("test_expect_success") __tag("test_log_level=2")
__tag("test_expect_msg=9=0: ") __tag("test_expect_not_msg=10=exit")
int says_it_after_all(void *ctx) {{ return 0; }}
"""
)


@pytest.fixture
def _privilege(bpf: Loader) -> None:
    """Skip where nothing can be loaded; an inner session would count its own skips."""


@pytest.mark.usefixtures("_privilege")
def test_each_annotation_does_what_it_says(pytester: pytest.Pytester) -> None:
    (pytester.path / "verifier_more.c").write_text(PROGRAMS)
    pytester.makeini("[pytest]\nbpf_c_tests = verifier_*.c\n")
    text = session(pytester).stdout.str()
    for name in (
        *("has_machine_code", "has_code_of_each_machine", "is_for_both", "returns_a_pointer"),
        *("is_loaded", "says_it_in_order"),
    ):
        assert f"PASSED verifier_more.c::{name}\n" in text, text
    assert "has_another_code: the machine code: 'bananas' is not there" in text
    assert "is for load_mode=no_jited, and this kernel has JIT" in text
    assert "needs CONFIG_OF_NOBODY=y" in text
    assert "__linear_size is for sched_cls, sched_act, cgroup_skb, and this is xdp" in text
    assert "'exit' is on line" in text
    line = PROGRAMS.partition("int is_refused_to_others")[0].count("\n") + 1
    assert f"SKIPPED [1] verifier_more.c:{line}: this kernel lets nobody" in text or (
        "PASSED verifier_more.c::is_refused_to_others@unpriv" in text
    )


CALLS_A_KFUNC = (
    HEAD
    + TAG
    + """
extern int bpf_nobody_has_this(void) __ksym;
SEC("tc") __tag("test_expect_failure") int calls(void *ctx) { return bpf_nobody_has_this(); }
"""
)
ATTACHES = (
    HEAD
    + TAG
    + """
SEC("fentry/qqqqqqqq_nobody_has_this") __tag("test_expect_failure")
int attaches(void *ctx) { return 0; }

SEC("fentry/vfs_raed") __tag("test_expect_success") int is_misspelt(void *ctx) { return 0; }
"""
)


@pytest.mark.bpf_requires(btf=True)
@pytest.mark.usefixtures("_privilege")
def test_what_the_kernel_lacks_is_a_skip_and_a_misspelt_name_is_not(
    pytester: pytest.Pytester,
) -> None:
    (pytester.path / "kfunc.test.bpf.c").write_text(CALLS_A_KFUNC)
    (pytester.path / "fentry.test.bpf.c").write_text(ATTACHES)
    result = session(pytester)
    result.assert_outcomes(skipped=2, failed=1)
    text = result.stdout.str()
    assert "this kernel has no kfunc 'bpf_nobody_has_this'" in text
    assert "this kernel has no 'qqqqqqqq_nobody_has_this' to attach to" in text
    assert "is_misspelt: it was refused (ESRCH" in text


STREAMS = (
    HEAD
    + TAG
    + """
extern int bpf_stream_vprintk_impl(int, const char *, const void *, __u32, void *) __ksym __weak;

SEC("syscall") __tag("test_expect_success") __tag("test_retval=0")
__tag("test_expect_stdout=0=n=42") __tag("test_expect_stderr=1=n={{[0-9]+}}")
int prints(void *ctx)
{
	static const char format[] = "n=%d\\n";
	__u64 value = 42;
	int result;

	if (!bpf_stream_vprintk_impl)
		return -1;
	result = bpf_stream_vprintk_impl(1, format, &value, sizeof(value), NULL);
	return result ?: bpf_stream_vprintk_impl(2, format, &value, sizeof(value), NULL);
}

SEC("syscall") __tag("test_expect_success") __tag("test_retval=0")
__tag("test_expect_stdout=2=bananas")
int is_silent(void *ctx) { return 0; }
"""
)


@pytest.mark.bpf_requires(kernel=">=6.17")
@pytest.mark.usefixtures("_privilege")
def test_a_program_that_wrote_nothing_to_its_stream_fails(pytester: pytest.Pytester) -> None:
    (pytester.path / "streams.test.bpf.c").write_text(STREAMS)
    assert "is_silent: its stdout: 'bananas' is not there" in session(pytester).stdout.str()


@pytest.mark.bpf_requires(kernel=">=6.18", kfunc="bpf_stream_vprintk_impl")
def test_what_a_program_wrote_to_its_streams_is_compared(
    pytester: pytest.Pytester, bpf: Loader
) -> None:
    source = pytester.path / "streams.test.bpf.c"
    source.write_text(STREAMS)
    if bpf.load(source, programs="prints").programs["prints"].test_run().retval == -errno.ENOMEM:
        pytest.skip("this kernel has no memory for streams")
    assert "PASSED streams.test.bpf.c::prints" in session(pytester).stdout.str()


@pytest.mark.unit
def test_patterns_that_must_be_absent_are_so_between_their_neighbours() -> None:
    text = "one\ntwo\nthree\n"
    one, two, three = Pattern("one"), Pattern("two", absent=True), Pattern("three")
    assert mismatch(text, [two, one]) is None
    assert mismatch(text, [one, two, three]) == "'two' is on line 2, and must not be there"
    assert mismatch(text, [one, two]) == "'two' is on line 2, and must not be there"
    assert mismatch(text, [one, three, two]) is None


@pytest.mark.unit
def test_annotations_of_newer_kernels() -> None:
    notes = read_annotations(
        [
            "comment:test_expect_success_unpriv",
            "comment:test_caps_unpriv=39|CAP_PERFMON",
            "comment:load_mode=jited",
            "comment:test_kconfig=CONFIG_BPF_JIT=y",
            "comment:test_retval=0xbadcafe",
            "comment:test_expect_stderr=0=ERROR",
            "comment:test_linear_size=14",
            "comment:test_prog_flags=!BPF_F_TEST_STATE_FREQ",
        ]
    )
    assert notes is not None
    assert notes.capabilities == ("CAP_BPF", "CAP_PERFMON")
    assert notes.load_modes == {"jited"}
    assert notes.kconfig == ("CONFIG_BPF_JIT=y",)
    assert notes.linear_size == 14
    assert notes.cleared_flags == 8
    assert notes.unprivileged is not None
    assert notes.unprivileged.retval in POINTER_VALUES
    assert notes.unprivileged.stderr == (Pattern("ERROR"),)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["test_expect_sucess"], "did you mean 'test_expect_success'"),
        (["test_expect_failure", "test_expect_success"], "both expected"),
        (["test_caps_unpriv=CAP_BFP"], "did you mean 'CAP_BPF'"),
        (["load_mode=jitted"], "did you mean 'jited'"),
        (["test_arch=X86_46"], "did you mean 'X86_64'"),
        (["test_prog_flags=BPF_F_SLEPABLE"], "did you mean 'BPF_F_SLEEPABLE'"),
        (["test_prog_flags=8", "test_prog_flags=!BPF_F_TEST_STATE_FREQ"], "are both there"),
        (["test_linear_size=many"], "must be a number"),
    ],
)
def test_annotations_that_are_misspelt_or_contradict(tags: list[str], message: str) -> None:
    with pytest.raises(AnnotationError, match=message.replace("(", r"\(")):
        read_annotations([f"comment:{tag}" for tag in tags])

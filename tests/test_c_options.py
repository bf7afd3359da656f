"""Tests in C with pytest's own options: the last failures, JUnit, other kernels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests.sessions import run_with_machines
from tests.test_c_tests import HEAD, TAG

if TYPE_CHECKING:
    from pytest_bpf.loader import Loader

TWO = (
    HEAD
    + """
SEC("xdp") __test __test_packet("udp_frame()") int passes(struct xdp_md *ctx)
{
	TEST_CHECK(ctx->data);
	return 0;
}

SEC("xdp") __test __test_packet("udp_frame()") int fails(struct xdp_md *ctx)
{
	TEST_EQUAL(ctx->data_end - ctx->data, 7);
	return 0;
}
"""
)


@pytest.fixture
def _privilege(bpf: Loader) -> None:
    """Skip where nothing can be loaded; an inner session would count its own skips."""


@pytest.mark.usefixtures("_privilege")
def test_the_last_failures_run_again_and_junit_has_what_they_checked(
    pytester: pytest.Pytester,
) -> None:
    (pytester.path / "two.test.bpf.c").write_text(TWO)
    first = pytester.runpytest_subprocess("--junitxml=results.xml")
    first.assert_outcomes(passed=1, failed=1)
    cases = {case.get("name"): case for case in ET.parse("results.xml").getroot().iter("testcase")}
    assert set(cases) == {"passes", "fails"}
    failure = cases["fails"].find("failure")
    assert failure is not None
    assert "ctx->data_end - ctx->data == 7: " in str(failure.get("message"))
    pytester.runpytest_subprocess("--lf").assert_outcomes(failed=1)


WITHOUT_PRIVILEGE = (
    """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
    + TAG
    + """
SEC("socket") __tag("test_expect_success") __tag("test_expect_failure_unpriv")
__tag("test_expect_msg_unpriv=0=R0 leaks addr as return value") __tag("test_retval=0xbadcafe")
__attribute__((naked)) int returns_its_context(void)
{
	asm volatile("r0 = r1; exit;" ::: "r0");
}

SEC("socket") __tag("test_expect_success_unpriv") __tag("test_retval_unpriv=0")
int is_allowed_to_all(void *ctx) { return 0; }

SEC("socket") __tag("test_expect_success_unpriv")
int is_refused_to_some(void *ctx) { return bpf_get_smp_processor_id() + (long)ctx; }
"""
)


@pytest.mark.xdist_group("machines")
def test_tests_in_c_run_in_a_machine_also_without_privilege(
    session: pytest.Pytester,
    release: str,
) -> None:
    (session.path / "two.test.bpf.c").write_text(TWO)
    (session.path / "unprivileged.test.bpf.c").write_text(WITHOUT_PRIVILEGE)
    result = run_with_machines(session, "--bpf-kernel", "debian", "-rA")
    result.assert_outcomes(passed=4, failed=2)
    text = result.stdout.str()
    for name in ("returns_its_context", "returns_its_context@unpriv", "is_allowed_to_all@unpriv"):
        assert f"PASSED unprivileged.test.bpf.c::{name}[{release}]" in text
    assert f"PASSED two.test.bpf.c::passes[{release}]" in text
    assert "is_refused_to_some: it was refused (EACCES" in text

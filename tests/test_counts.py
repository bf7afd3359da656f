"""Counting what ran, and what can run nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import counts

if TYPE_CHECKING:
    from pathlib import Path

REPORT = """\
<testsuites><testsuite>
<testcase classname="tests.a" name="runs"/>
<testcase classname="tests.a" name="waits">
<skipped type="pytest.skip" message="too slow"/></testcase>
<testcase classname="tests.a" name="expected">
<skipped type="pytest.xfail" message="no"/></testcase>
</testsuite></testsuites>
"""


def test_a_skip_is_told_from_a_run(tmp_path: Path) -> None:
    report = tmp_path / "native.xml"
    report.write_text(REPORT)
    assert counts.outcomes(str(report)) == {
        "tests.a::runs": "",
        "tests.a::waits": "too slow",
        "tests.a::expected": "",
    }


def test_what_ran_in_one_place_ran() -> None:
    first = {"a": "", "b": "only root", "c": "too slow"}
    assert counts.nowhere([first]) == {"b": "only root", "c": "too slow"}
    assert counts.nowhere([first, {"b": "", "c": "no time"}]) == {"c": "too slow"}


def test_a_kernel_is_an_excuse_and_a_missing_tool_is_none() -> None:
    assert counts.has_excuse("this kernel has no kprobes")
    assert counts.has_excuse("requires kfunc 'x'")
    assert not counts.has_excuse("requires BTF of the kernel")
    assert not counts.has_excuse("bpftool is not installed")

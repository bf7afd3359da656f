"""``python -m tests.counts REPORT...``: how many tests ran, and whether some can run nowhere.

Each report is a JUnit file. The first is that of a machine with privilege and the packages of
``.ci/setup``, which lacks only what its kernel lacks. A test that no report has run needs an
excuse: a reason that begins with "this kernel" or "not measured: ", a ``bpf_requires`` that is not
met, or a kind of attaching that the plugin's own probe does not find.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from pytest_bpf.kernel.features import ATTACH_KINDS, attach, privilege

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def outcomes(report: str) -> dict[str, str]:
    """Return by test why it was skipped; empty for one that ran."""
    suite = ET.parse(report).getroot()
    return {
        f"{case.get('classname')}::{case.get('name')}": next(
            (skip.get("message", "") for skip in case.iterfind("skipped[@type='pytest.skip']")), ""
        )
        for case in suite.iter("testcase")
    }


def nowhere(reports: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the tests that ran in none of the reports, with the reason in the first."""
    first, *others = reports
    return {
        test: reason
        for test, reason in first.items()
        if reason and not any(other.get(test) == "" for other in others)
    }


def has_excuse(reason: str) -> bool:
    """Say whether the kernel is to blame for a skip."""
    if reason.startswith("not measured: "):
        return True  # the machine was busy
    if reason.startswith(("this kernel", "requires ")):
        return "BTF of the kernel" not in reason
    if "the kernel refuses it before verifying it" in reason:
        return True  # by lockdown, a security module, or its configuration
    words = set(re.findall(r"\w+", reason))
    return any(not attach(kind) for kind in ATTACH_KINDS if kind in words)


def main(*reports: str) -> None:
    """Print the counts of the first report; exit with a message for what can run nowhere."""
    suite = ET.parse(reports[0]).getroot()
    failed = len(suite.findall(".//failure")) + len(suite.findall(".//error"))
    results = [outcomes(report) for report in reports if Path(report).exists()]
    skips = nowhere(results)
    if privilege() is None and (wrong := {r for r in skips.values() if not has_excuse(r)}):
        sys.exit("\n  ".join(["Skipped, which a machine with privilege must not:", *sorted(wrong)]))
    total, skipped = len(results[0]), sum(map(bool, results[0].values()))
    inside = suite.findall(".//property[@name='passed_in_machine']")
    print("in the virtual machine:", sum(int(p.get("value", "0")) for p in inside), "passed")
    print(f"natively: {total - failed - skipped} passed, {failed} failed, {skipped} skipped")


if __name__ == "__main__":
    main(*sys.argv[1:])

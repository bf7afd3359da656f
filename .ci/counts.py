"""Say how many tests ran, and fail when one was skipped that this machine must run.

A machine with privilege and the packages of ``.ci/setup`` lacks only what its kernel lacks: a skip
is excused when its reason begins with "this kernel" or is a ``bpf_requires`` that is not met, and
when it names a kind of attaching that the plugin's own probe does not find.
"""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree as ET

from pytest_bpf.kernel.features import ATTACH_KINDS, attach, privilege


def main(report: str) -> None:
    """Print the counts of a JUnit file; exit with a message when a skip has no excuse."""
    suite = ET.parse(report).getroot()  # noqa: S314 (pytest wrote it just now)
    total = len(suite.findall(".//testcase"))
    failed = len(suite.findall(".//failure")) + len(suite.findall(".//error"))
    reasons = [skip.get("message", "") for skip in suite.findall(".//skipped[@type='pytest.skip']")]
    if privilege() is None and (wrong := sorted({r for r in reasons if not excused(r)})):
        sys.exit("\n  ".join(["Skipped, which a machine with privilege must not:", *wrong]))
    passed = total - failed - len(reasons)
    inside = suite.findall(".//property[@name='passed_in_machine']")
    print("in the virtual machine:", sum(int(p.get("value", "0")) for p in inside), "passed")  # noqa: T201
    print(f"natively: {passed} passed, {failed} failed, {len(reasons)} skipped")  # noqa: T201


def excused(reason: str) -> bool:
    """Say whether the kernel is to blame for a skip."""
    if reason.startswith(("this kernel", "requires ")):
        return "BTF of the kernel" not in reason
    named = set(re.findall(r"\w+", reason))
    return any(not attach(kind) for kind in ATTACH_KINDS if kind in named)


if __name__ == "__main__":
    main(sys.argv[1])

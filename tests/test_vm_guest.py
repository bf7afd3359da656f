"""The suite of `tests.guest`, on Debian's stock kernel in a machine: all of it, with no skip."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpf import compile_source
from pytest_bpf.errors import UnavailableError
from pytest_bpf.vm import kernels, qemu

GUEST = Path(__file__).parent / "guest"

TIMEOUT = 400
"""Seconds; saving a machine under emulation takes a minute when the host is busy."""

pytestmark = pytest.mark.xdist_group("machines")


@pytest.fixture(scope="module")
def _machine() -> None:
    """Skip when there can be no machine here; compile on this side of it what is not yet."""
    pytest.importorskip("qemu.qmp", reason="no qemu.qmp; install pytest-bpf[vm]")
    try:
        qemu.program()
        kernels.find("debian")
        for source in GUEST.glob("*.bpf.c"):
            compile_source(source)
    except UnavailableError as error:
        pytest.skip(str(error))


def in_a_machine(tests: str, *options: str) -> str:
    """Run tests of `GUEST` in a machine and return the report; fail with it when one fails."""
    python = [sys.executable, "-m"]
    machine = [*python, "pytest_bpf.vm", "--kernel", "debian", *options, "--"]
    command = [*python, "pytest", "-p", "no:cacheprovider", "--bpf-strict", "-q", tests]
    done = subprocess.run(
        [*machine, *command],
        cwd=GUEST.parent.parent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        pytest.fail(f"in the machine:\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize("options", [(), ("--exact",)], ids=["plain", "exact"])
def test_the_kinds_of_program(options: tuple[str, ...]) -> None:
    report = in_a_machine("tests/guest/test_kinds.py", *options)
    assert re.search(r"^2\d passed in", report, re.MULTILINE), report


@pytest.mark.usefixtures("_machine")
def test_exact_figures() -> None:
    report = in_a_machine("tests/guest/test_exact.py", "--exact")
    assert re.search(r"^\d+ passed in", report, re.MULTILINE), report

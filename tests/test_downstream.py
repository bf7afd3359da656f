"""A downstream repository: a costlier program fails the right tests, a comment changes nothing.

``PYTEST_BPF_DOWNSTREAM`` is the Python that has pytest-bpf installed; `.ci/wheel` gives one that
has the built wheel. ``PYTEST_BPF_TOUCHES`` is how often a comment is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.budget_sessions import Session, session_of
from tests.sessions import run_in

REPOSITORY = Path(__file__).parent / "downstream"

COVERAGE_PROJECT = Path(__file__).parent / "coverage_project"

PYTHON = os.environ.get("PYTEST_BPF_DOWNSTREAM", sys.executable)

TOUCHES = int(os.environ.get("PYTEST_BPF_TOUCHES", "2"))

LOOK_UP = "\tcount = bpf_map_lookup_elem(&packets, &port);\n"

NEEDLESS = """\
\t__u16 other = port + 1;
\tif (bpf_map_lookup_elem(&packets, &other))
\t\treturn XDP_PASS;
"""


class Downstream:
    """The repository in a folder of its own, and its baseline in one way of measuring."""

    def __init__(self, folder: Path, *how: str) -> None:
        shutil.copytree(REPOSITORY, folder, dirs_exist_ok=True)
        self._folder = folder
        self._how = how
        self._source = folder / "bpf" / "limit.bpf.c"

    def run(self, *args: str) -> Session:
        """Run its tests; the names are those without the kernel."""
        told = session_of(self._folder, *self._how, *args, python=PYTHON)
        messages = {name.partition("[")[0]: text for name, text in told.messages.items()}
        return Session(told.output, messages, told.properties)

    def change(self, old: str, new: str) -> None:
        """Change the program."""
        text = self._source.read_text()
        assert old in text
        self._source.write_text(text.replace(old, new))


@pytest.mark.bpf_requires(attach="xdp")
def test_natively(tmp_path: Path) -> None:
    downstream = Downstream(tmp_path)
    assert not downstream.run("--bpf-save-baseline").failed
    for number in range(TOUCHES):
        downstream.change("/* ", f"/* {number} ")
        told = downstream.run("--bpf-baseline=main")
        assert not told.failed, told.output
    downstream.change(LOOK_UP, NEEDLESS + LOOK_UP)
    told = downstream.run("--bpf-baseline=main")
    assert told.failed == {"test_limit_costs_natively"}
    assert re.search(
        r"^prog limit: verified_insns \d+ -> \d+: \+\d+ \(\+[\d.]+ %\), where no change is allow",
        told.messages["test_limit_costs_natively"],
        re.MULTILINE,
    )


COVERED = r"^bpf/xdp\.bpf\.c +13 +1 +6 +2 +84% +28->30, 34$"


@pytest.mark.bpf_requires(attach="xdp")
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_pytest_cov_has_the_lines_of_c(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert re.search(COVERED, pytest_cov(tmp_path, *options), re.MULTILINE)


def pytest_cov(folder: Path, *options: str) -> str:
    """Run the tests of another repository under pytest-cov, and return what the user sees."""
    shutil.copytree(COVERAGE_PROJECT, folder, dirs_exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    report = ("--cov", "--cov-branch", "--cov-report=term-missing")
    done = run_in(folder, "-p", "no:cacheprovider", *report, *options, python=PYTHON)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.xdist_group("machines")
@pytest.mark.usefixtures("kernel")
def test_exactly(tmp_path: Path) -> None:
    downstream = Downstream(tmp_path, "--bpf-exact")
    assert not downstream.run("--bpf-save-baseline").failed
    for number in range(TOUCHES):
        downstream.change("/* ", f"/* {number} ")
        told = downstream.run("--bpf-baseline=main")
        assert not told.failed, told.output
    downstream.change(LOOK_UP, NEEDLESS + LOOK_UP)
    told = downstream.run("--bpf-baseline=main")
    assert told.failed == {"test_limit_costs_exactly", "test_limit_costs_natively"}
    message = told.messages["test_limit_costs_exactly"]
    broken = re.match(
        r"prog limit: instructions (\d+) breaks its limit of 250: \+\d+ \(\+[\d.]+ %\)\n", message
    )
    assert broken, message
    changed = re.search(r"^prog limit: instructions (\d+) -> (\d+): \+\d+", message, re.MULTILINE)
    assert changed, message
    assert changed[2] == broken[1]
    assert "inconclusive" not in told.output


@pytest.mark.xdist_group("machines")
@pytest.mark.usefixtures("kernel")
def test_pytest_cov_has_the_lines_of_c_on_debian_s_kernel(tmp_path: Path) -> None:
    pytest_cov(tmp_path)  # compiles it on this side, for every kernel
    # Exact mode is Debian's kernel in a machine that the test before has saved.
    assert re.search(COVERED, pytest_cov(tmp_path, "--bpf-exact"), re.MULTILINE)

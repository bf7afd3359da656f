"""The suite of `tests.guest`, on Debian's stock kernel in a machine: all of it, with no skip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import compile_source
from pytest_bpf.bcc import loading
from pytest_bpf.coverage.recorder import Recorder
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernels import debian, lookup
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from pytest_bpf.kernels.kernel import Kernel

GUEST = Path(__file__).parent / "guest"

TIMEOUT = 400
"""Seconds; saving a machine under emulation takes a minute when the host is busy."""

pytestmark = pytest.mark.xdist_group("machines")


@pytest.fixture(scope="module")
def _machine(kernel: Kernel) -> None:  # noqa: ARG001 (without one there is no machine)
    """Compile on this side of the machine what is not yet."""
    try:
        for source in GUEST.glob("*.bpf.c"):
            compile_source(source)
        with Loader(lines=Recorder()) as loader:
            loader.open(GUEST / "lines.bpf.c")  # with counters, too
    except UnavailableError as error:
        pytest.skip(str(error))


def in_a_machine(request: pytest.FixtureRequest, tests: str, *options: str) -> int:
    """Run tests of `GUEST` in a machine and return how many passed; fail when one does not.

    The number goes to this test's report too, by which `make test` knows it.
    """
    python = [sys.executable, "-m"]
    machine = [*python, "pytest_bpf.vm", "--kernel", "debian", *options, "--"]
    command = [*python, "pytest", "-p", "no:cacheprovider", "--bpf-strict", "-q", *tests.split()]
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
    only_passed = re.search(r"^(\d+) passed in", done.stdout, re.MULTILINE)
    assert only_passed, done.stdout
    request.node.user_properties.append(("passed_in_machine", only_passed[1]))
    return int(only_passed[1])


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize("options", [(), ("--exact",)], ids=["plain", "exact"])
def test_the_kinds_of_program(request: pytest.FixtureRequest, options: tuple[str, ...]) -> None:
    assert in_a_machine(request, "tests/guest/test_kinds.py", *options) > 20


@pytest.mark.usefixtures("_machine")
def test_maps_and_events_in_bulk_what_programs_return_and_uprobes(
    request: pytest.FixtureRequest,
) -> None:
    files = ("bulk", "exits", "uprobes")
    assert in_a_machine(request, " ".join(f"tests/guest/test_{file}.py" for file in files)) > 10


@pytest.mark.usefixtures("_machine")
def test_lines_of_c(request: pytest.FixtureRequest) -> None:
    assert in_a_machine(request, "tests/guest/test_lines.py") == 7


@pytest.mark.usefixtures("_machine")
def test_exact_figures(request: pytest.FixtureRequest) -> None:
    assert in_a_machine(request, "tests/guest/test_exact.py", "--exact") > 7


@pytest.mark.usefixtures("_machine")
def test_exact_costs(request: pytest.FixtureRequest) -> None:
    assert in_a_machine(request, "tests/guest/test_costs.py", "--exact") > 5


@pytest.mark.usefixtures("_machine")
@pytest.mark.skipif(not shutil.which("bpftrace"), reason="no bpftrace; apt install bpftrace")
def test_an_agent_with_a_kprobe(request: pytest.FixtureRequest) -> None:
    assert in_a_machine(request, "tests/guest/test_agents.py", "--exact") == 1


@pytest.mark.usefixtures("_machine")
def test_a_bcc_source_with_kprobes(request: pytest.FixtureRequest) -> None:
    try:
        loading.python()
        debian.headers()
    except UnavailableError as error:
        pytest.skip(str(error))
    assert in_a_machine(request, "tests/guest/test_bcc.py") == 1


UNCOUNTED = """
import sys
from pytest_bpf.kernels import lookup
from pytest_bpf.vm import qemu, run

hardware = qemu.hardware

def without_icount(machine, accelerator):
    words = hardware(machine, accelerator)
    at = words.index("-icount")
    return words[:at] + words[at + 2:]

qemu.hardware = without_icount
machine = qemu.Machine(lookup.find(sys.argv[1]), exact=True)
code = "from pytest_bpf.costs.instruments.instrument import instrument; instrument()"
sys.exit(run.follow(machine, run.start(machine, [sys.executable, "-c", code])))
"""


@pytest.mark.usefixtures("_machine")
def test_a_machine_that_does_not_count_is_refused(tmp_path: Path) -> None:
    """It says that it is exact, and runs without -icount: so would one saved without it."""
    kernel = lookup.find("debian")
    assert kernel is not None
    done = subprocess.run(
        [sys.executable, "-c", UNCOUNTED, str(kernel.image)],
        env={**os.environ, "PYTEST_BPF_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    assert "exact mode does not count here: 50 instructions more read" in done.stderr

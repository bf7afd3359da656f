"""``--bpf-shell`` at a terminal, on the running kernel; in a machine: `test_vm_ordinary_user`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.terminals import Terminal

if TYPE_CHECKING:
    from pathlib import Path

TWICE = """
import pytest

@pytest.fixture
def fixture():
    yield
    print("printed in teardown")
    raise AssertionError("of the fixture")

def test_stops_twice(fixture):
    print("printed in the test")
    raise AssertionError("of the test")
"""

STOPPED = r"test_stops_twice(?:\[host\])? stopped here; exit goes on\n"


def at_terminal(folder: Path, *words: str) -> Terminal:
    (folder / "test_twice.py").write_text(TWICE)
    given = {"SHELL": "/bin/sh", "PS1": "shell> "}
    # with capturing: what asks for a terminal must find it behind that, and leave it as it was
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return Terminal(command, folder, {**os.environ, **given})


@pytest.mark.parametrize("options", ["", "--bpf-kernel host"])
def test_a_test_that_stops_twice_has_a_shell_each_time(tmp_path: Path, options: str) -> None:
    if options:
        pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    with at_terminal(tmp_path, "--bpf-shell", *options.split()) as terminal:
        terminal.expect(r"= test session starts =(?s:.*)collected 1 item *\n")
        for printed in ("printed in the test", "printed in teardown"):
            assert printed in terminal.expect(STOPPED)
            terminal.type("tty; exit")
            terminal.expect(r"/dev/pts/\d+\n")
        summary = terminal.expect(r"1 failed, 1 error in .*\n")
        assert "collected 1 item" not in summary, "pytest's own words are no output of a test"
        assert summary.count("printed in the test\n") == 2
        assert terminal.wait() == pytest.ExitCode.TESTS_FAILED


def test_a_shell_and_then_the_debugger(tmp_path: Path) -> None:
    with at_terminal(tmp_path, "--bpf-shell", "--pdb") as terminal:
        for _ in range(4):  # whoever comes first
            if terminal.expect(rf"{STOPPED}|\(Pdb\) ").endswith("(Pdb) "):
                terminal.type("p 40 + 2")
                terminal.expect(r"\n42\n\(Pdb\) ")
                terminal.type("continue")
            else:
                terminal.type("tty; exit")
                terminal.expect(r"/dev/pts/\d+\n")
        terminal.expect(r"1 failed, 1 error in .*\n")
        assert terminal.wait() == pytest.ExitCode.TESTS_FAILED


SECOND = "socket=127.0.0.1:1"


@pytest.mark.parametrize("option", ["--pdb", "--trace", "--bpf-shell", "--bpf-console", "-s"])
def test_another_host_has_not_this_terminal(tmp_path: Path, option: str) -> None:
    """Said before anything runs, and before the host is called."""
    pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    kernels = ("--bpf-kernel", "host", "--bpf-kernel-may-fail", SECOND)
    with at_terminal(tmp_path, option, *kernels) as terminal:
        said = terminal.expect(r"ERROR: .*(?s:.*)leave one of the two out\n")
        sentence = " ".join(said.split())
        assert f"ERROR: {option} " in sentence
        assert f"this terminal, and --bpf-kernel {SECOND} is another host: log in" in sentence
        assert "test session starts" not in said
        assert terminal.wait() == pytest.ExitCode.USAGE_ERROR


def test_what_may_fail_fails_no_session_at_the_terminal(tmp_path: Path) -> None:
    pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    kernels = ("--bpf-kernel-may-fail", "host", "--bpf-kernel-may-fail", "0.99")
    with at_terminal(tmp_path, "-s", *kernels) as terminal:
        terminal.expect(r"bpf: not on 0\.99: no kernel '0\.99' in /boot or ")
        terminal.expect(r"1 failed, 1 error in .*\n")
        terminal.expect(r"bpf: may fail on host: the session ended with exit status 1\n")
        assert terminal.wait() == pytest.ExitCode.OK

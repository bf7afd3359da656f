"""Real hosts by execnet: a socket server on 127.0.0.1, and an ``ssh`` that stays here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cache import open_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")

TESTS = """
import os
import signal
import pytest

SOURCE = '''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int two(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
'''

there = pytest.mark.skipif("THERE" not in os.environ, reason="here")

@there
def test_where(tmp_path):
    assert os.path.basename(os.getcwd()) == "there"

def test_program(bpf):
    assert bpf.load(SOURCE).programs["two"].test_run(bytes(64)).retval == 2

@there
def test_dies():
    if "SERVER" not in os.environ:
        os._exit(1)
    os.kill(int(os.environ["SERVER"]), signal.SIGKILL)
    signal.pause()

def test_after(): pass
"""

SERVER = """
import os
from execnet.gateway_base import get_execmodel
from execnet.script import socketserver
os.environ |= {"THERE": "1", "SERVER": str(os.getpid())}
socketserver.execmodel = get_execmodel("thread")
listening = socketserver.bind_and_listen(("127.0.0.1", 0), socketserver.execmodel)
print(listening.getsockname()[1], flush=True)
socketserver.startserver(listening, loop=True)
"""


@pytest.fixture
def there(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the project on the other host; here it is the folder above."""
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(open_cache().folder))
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(variable, raising=False)
    folder = pytester.mkdir("there")
    for place in (pytester.path, folder):
        (place / "test_it.py").write_text(TESTS)
    return folder


@pytest.fixture
def port() -> Iterator[str]:
    """The port of a socket server."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.kill()


def run(pytester: pytest.Pytester, *args: str) -> list[str]:
    """Run the tests of this folder, in order, and return the lines of the table."""
    options = ("-p", "no:cacheprovider", "-p", "no:randomly", "--junitxml=result.xml")
    result = pytester.runpytest_subprocess(*options, *args, "test_it.py", timeout=120)
    assert not any("INTERNALERROR" in line for line in result.outlines + result.errlines)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (pytester.path / "result.xml").exists()
    return [re.sub(" +", " ", line) for line in result.outlines]


def test_a_host_is_one_of_the_kernels(pytester: pytest.Pytester, there: Path, port: str) -> None:
    """When it is gone, the test that was running there fails, and the others say so."""
    name = f"127.0.0.1:{port}"
    lines = run(
        *(pytester, "--bpf-kernel", "host"), "--bpf-kernel", f"socket={name}//chdir={there}"
    )
    assert {
        f" host {name}",
        "test_it.py::test_where skipped passed",
        "test_it.py::test_program passed passed",
        "test_it.py::test_dies skipped failed",
        "test_it.py::test_after passed error",
        f"nowhere to run on {name}: the connection to {name} has ended",
    } <= set(lines), "\n".join(lines)


def test_a_host_by_ssh(
    pytester: pytest.Pytester, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies there is started again."""
    ssh = pytester.path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/sh\ntest "$2" = me@pi && shift 2 && THERE=1 exec sh -c "$*"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    choice = f"ssh=me@pi//python={sys.executable}//chdir={there}"
    lines = run(pytester, "--bpf-kernel", choice, "-n", "2")
    assert {
        " me@pi",
        "test_it.py::test_where passed",
        "test_it.py::test_dies failed",
        "test_it.py::test_after passed",
    } <= set(lines), "\n".join(lines)


def test_a_host_that_does_not_answer(pytester: pytest.Pytester, there: Path) -> None:
    assert there.exists()
    result = pytester.runpytest_subprocess("--bpf-kernel", "socket=127.0.0.1:1", "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bpf-kernel: no worker on 127.0.0.1:1: *refused; *"])

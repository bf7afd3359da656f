"""Other hosts by execnet: a socket server and sshds, all on 127.0.0.1."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cache import open_cache
from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import lookup
from pytest_bpf.plugin.matrix import hosts, sending
from pytest_bpf.plugin.matrix.choices import KernelChoice, here
from tests.sessions import run_with_machines
from tests.ssh_hosts import ssh_host
from tests.test_matrix_kernels import dead_kernel, x86_64

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ssh_hosts import SshHost

__all__ = ["dead_kernel"]  # a fixture of another module

pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")

pytestmark = pytest.mark.xdist_group("machines")

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

TIMEOUT = 400


@pytest.fixture
def project(pytester: pytest.Pytester, own_session: None) -> Iterator[Path]:  # noqa: ARG001
    """A folder for a project, whose sessions use the user's own cache; its copy there goes."""
    yield pytester.path
    copy = sending.project(pytester.path, pytester.path).key
    shutil.rmtree(open_cache().folder / "projects" / copy, ignore_errors=True)


@pytest.fixture
def there(project: Path) -> Path:
    """The folder of the project on the other host; here it is the folder above."""
    folder = project / "there"
    folder.mkdir()
    for place in (project, folder):
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


@pytest.fixture
def build1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    """A host by ssh."""
    with ssh_host("build1", tmp_path_factory.mktemp("build1")) as host:
        yield host


@pytest.fixture
def python() -> str:
    """The word of a specification for the present Python."""
    return f"python={sys.executable}"


def session(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest in a project."""
    result = run_with_machines(pytester, "-p", "no:randomly", "--junitxml=result.xml", *args)
    assert not any("INTERNALERROR" in line for line in result.outlines + result.errlines)
    return result


def table(result: pytest.RunResult) -> list[str]:
    """Return the lines of a result, without the width of columns."""
    return [re.sub(" +", " ", line) for line in result.outlines]


def test_a_host_is_one_of_the_kernels(pytester: pytest.Pytester, there: Path, port: str) -> None:
    """When it is gone, the test that was running there fails, and the others say so."""
    name = f"127.0.0.1:{port}"
    choice = f"socket={name}//chdir={there}"
    result = session(pytester, "--bpf-kernel", "host", "--bpf-kernel", choice, "test_it.py")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (pytester.path / "result.xml").exists()
    lines = table(result)
    assert {
        f" host {name}",
        "test_it.py::test_where skipped passed",
        "test_it.py::test_program passed passed",
        "test_it.py::test_dies skipped failed",
        "test_it.py::test_after passed error",
        f"nowhere to run on {name}: the connection to {name} has ended",
    } <= set(lines), "\n".join(lines)


@x86_64
@pytest.mark.usefixtures("release")
def test_a_machine_of_a_host_that_may_fail(
    pytester: pytest.Pytester, there: Path, port: str, dead_kernel: str
) -> None:
    """The session goes on with as many workers for each kernel as before."""
    choice = f"socket=127.0.0.1:{port}//chdir={there}//kernel={dead_kernel}"
    options = ("--bpf-kernel", "host", "--bpf-kernel-may-fail", choice, "-n", "2")
    result = session(pytester, *options, "test_it.py::test_program", "test_it.py::test_after")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "bpf: pytest-bpf *, kernels host",
            f"bpf: not on 6.6.9@127.0.0.1:{port}: no machine with this kernel: the virtual *",
            "created: 2/2 workers",
            "total * 2 passed",
        ]
    )


def test_a_host_by_ssh(
    pytester: pytest.Pytester, there: Path, build1: SshHost, python: str
) -> None:
    """A worker that dies there is started again."""
    choice = build1.choice(python, f"chdir={there}")
    result = session(pytester, "--bpf-kernel", choice, "-n", "2", "test_it.py")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = table(result)
    assert {
        " build1",
        "test_it.py::test_where passed",
        "test_it.py::test_dies failed",
        "test_it.py::test_after passed",
    } <= set(lines), "\n".join(lines)


SENT = """
import os
from pathlib import Path

def test_sent(bpf):
    here = Path.cwd()
    assert here.parent.name == "projects", here
    assert not (here / ".secret").exists()
    assert not (here / "venv").exists()
    assert bpf.load("../program.bpf.c").programs["two"].test_run(bytes(64)).retval == 2
"""


def test_the_project_is_sent_along(
    pytester: pytest.Pytester, project: Path, build1: SshHost, python: str
) -> None:
    """Also what is included; a test is named by its path here."""
    files = {
        "tests/test_sent.py": SENT,
        "program.bpf.c": '#include "include/body.h"\n',
        "include/body.h": TESTS.partition("'''")[2].partition("'''")[0],
        ".secret": "",
        "venv/pyvenv.cfg": "",
        "pytest.ini": "[pytest]\n",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    argument = str(project / "tests/test_sent.py")
    result = session(pytester, "--bpf-kernel", build1.choice(python), argument)
    result.assert_outcomes(passed=1)
    assert "tests/test_sent.py::test_sent passed" in table(result)


@pytest.mark.unit
def test_of_a_repository_goes_what_git_does_not_ignore(tmp_path: Path) -> None:
    for name in (".gitignore", "a/x.py", "a/build/x.o", "a/.config", "b.sock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("build\n")
    whole = sending.project(tmp_path / "a", tmp_path / "a")
    assert (whole.root, whole.folder) == (tmp_path / "a", tmp_path / "a")
    assert not whole.has(tmp_path / "a/.config")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=60)
    repository = sending.project(tmp_path / "a", tmp_path / "a")
    assert (repository.root, repository.folder) == (tmp_path, tmp_path / "a")
    sent = {p.name for p in tmp_path.rglob("*") if ".git" not in p.parts and repository.has(p)}
    assert sent == {".gitignore", "a", "x.py", ".config", "b.sock"}
    assert repository.key != whole.key


ENDS = """
import os, signal

pid = int(os.environ.get("BUILD1", 0))

def pytest_runtest_logreport(report):
    global pid
    if pid and "@build1" in report.node.gateway.spec.bpf_place:
        import psutil
        for process in psutil.Process(pid).children(recursive=True):
            process.kill()
        os.kill(pid, signal.SIGKILL)
        pid = 0
"""


@pytest.mark.usefixtures("project")
def test_machines_on_a_host_that_ends(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    build1: SshHost,
    python: str,
    release: str,
) -> None:
    """One kernel here and there is one column; what was left there runs here."""
    monkeypatch.setenv("BUILD1", str(build1.pid))
    pytester.makeconftest(ENDS)
    pytester.makepyfile(
        test_it=f"""
        import os
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_x(number):
            assert os.uname().release == {release!r}
        """
    )
    choice = build1.choice(python, "kernel=debian")
    result = session(pytester, "--bpf-kernel", "debian", "--bpf-kernel", choice)
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == 8
    cases = ET.parse(pytester.path / "result.xml").findall(".//testcase")
    assert len(cases) == 8
    lines = table(result)
    assert f" {release}" in lines
    assert "total 8 passed" in lines
    result.stdout.fnmatch_lines([f"bpf: *, kernels {release}, {release}@build1"])


def test_what_runs_here_in_place_of_a_host(release: str) -> None:
    host = hosts.Host(hosts.Address("build1", "ssh=build1", ""), "/usr/bin/python3")
    far = KernelChoice("/there/vmlinuz", release, (), written="debian", host=host, logs="/there")
    assert far.place == f"{release}@build1"
    stock = lookup.find("debian")
    assert stock is not None
    near = here(far)
    assert near == replace(far, choice=str(stock.image), host=None, logs="")
    assert here(replace(far, name="0.99")) is None
    assert here(replace(far, written="0.99")) is None


@pytest.mark.usefixtures("project")
def test_hosts_that_will_not_do(
    pytester: pytest.Pytester, build1: SshHost, python: str, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    cases = {
        build1.choice(python, "kernel=0.99"): "build1: no kernel '0.99' in /boot or *",
        build1.choice(
            python, "kernel=host"
        ): "build1: 'host' is no kernel of a machine; leave out *",
        build1.choice(
            f"python={bare}/bin/python"
        ): f"build1: {bare}/bin/python has no pytest-bpf; *",
        build1.choice(
            "python=/none/python"
        ): "no worker on build1: *; it must answer with a Python *",
    }
    words = [word for choice in cases for word in ("--bpf-kernel-may-fail", choice)]
    result = session(pytester, "--bpf-kernel", "socket=127.0.0.1:1", *words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bpf-kernel: no worker on 127.0.0.1:1: *refused*; *"])
    pytester.makepyfile("def test_x(): pass")
    result = session(pytester, "--bpf-kernel", "host", *words)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines_random(
        [f"bpf: not on *: {sentence}" for sentence in cases.values()]
    )


@pytest.mark.unit
@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("ssh=", "names no host; write ssh=HOST or socket=HOST:PORT"),
        ("socket=pi", "a socket is socket=HOST:PORT, with a port from 1 to 65535"),
        ("ssh=pi//kernel=", "which kernel? kernel=debian"),
        ("ssh=pi//kernel", "which kernel? kernel=debian"),
        ("ssh=pi//_x=1", "is no specification of execnet"),
        ("ssh=pi//", "is no specification of execnet"),
    ],
)
def test_specifications_that_are_none(choice: str, words: str) -> None:
    with pytest.raises(BpfError, match=re.escape(words)):
        hosts.parse(choice)


@pytest.mark.unit
def test_options_of_ssh_come_before_the_name() -> None:
    address, kernel = hosts.parse("ssh=-p 2222 me@pi//chdir=/srv//kernel=oci:ghcr.io/x/y:6.6")
    assert (address.name, address.chdir, kernel) == ("me@pi", "/srv", "oci:ghcr.io/x/y:6.6")
    assert address.spec == f"ssh={hosts.ALIVE} -p 2222 me@pi//chdir=/srv//python=python3"

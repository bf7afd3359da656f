"""Machines for a user without any privilege or capability, in a cache of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pytest_bpf
from tests.nobody import NOBODY
from tests.terminals import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.kernels.kernel import Kernel

TIMEOUT = 400

pytestmark = [
    pytest.mark.xdist_group("machines"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

ORDINARY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"),
)
"""The beginning of a command run without a single capability."""

PARTS = "numpy, psutil, pytest, pytest_bpf, xdist"
TRY = f"import {PARTS}, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"


@dataclass(frozen=True)
class User:
    """A user with a folder and a Python of their own; the kernel lies where they can read it."""

    home: Path
    python: str
    environment: dict[str, str]

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*ORDINARY, self.python, *words],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Return the exit status, and what it printed."""
        process = self.start(*words)
        out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, out, err

    def at_terminal(self, *words: str) -> Terminal:
        command = [*ORDINARY, self.python, "-m", "pytest", "-p", "no:cacheprovider", *words]
        return Terminal(command, self.home, {**self.environment, "SHELL": "/bin/sh"})

    def in_machine(self, script: str) -> tuple[int, str, str]:
        machine = ("--kernel", str(self.home / "kernel"), "--writable", str(self.home))
        return self.run("-m", "pytest_bpf.vm", *machine, "--", "sh", "-c", script)


@pytest.fixture(scope="module")
def user(kernel: Kernel) -> Iterator[User]:
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv; install util-linux")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        _lay_out(kernel, home / "kernel")
        (home / "cache").mkdir()
        for folder in (home, home / "cache"):
            os.chown(folder, NOBODY, NOBODY)
        paths = [sysconfig.get_path("purelib"), str(Path(pytest_bpf.__file__).parents[1])]
        environment = {
            "HOME": name,
            "PATH": os.environ["PATH"],
            "PYTEST_BPF_CACHE": str(home / "cache"),
            "PYTHONPATH": ":".join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        yield _with_python(home, environment)


def _with_python(home: Path, environment: dict[str, str]) -> User:
    """Return the user with a Python of this version that they can run; skip when there is none."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    said = ""
    for python in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if python:
            user = User(home, python, environment)
            code, _, said = user.run("-c", TRY)
            if code == 0:
                return user
    reason = (said.strip().splitlines() or ["there is no other"])[-1]
    pytest.skip(f"no {version} that another user can run, with {PARTS}: {reason}")


def _lay_out(kernel: Kernel, root: Path) -> None:
    """Lay the kernel out as the ci-kernels images do: boot/vmlinuz, and lib/modules."""
    assert kernel.modules is not None
    (root / "boot").mkdir(parents=True)
    shutil.copy(kernel.image, root / "boot/vmlinuz")
    shutil.copytree(kernel.modules, root / "lib/modules" / kernel.release, copy_function=_linked)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_the_kprobe_suite_twice_at_once(user: User, kernel: Kernel) -> None:
    """By one command each; one of the two saves the machine, the other waits and restores it."""
    suite = ("--pyargs", "bpf_examples.code_structure", "--bpf-strict")
    kprobes = ("-k", "on_call and each_process")
    options = ("-p", "no:cacheprovider", "-q", "--bpf-kernel", str(user.home / "kernel"))
    both = [user.start("-m", "pytest", *options, *suite, *kprobes) for _ in range(2)]
    outputs = [one.communicate(timeout=TIMEOUT) for one in both]
    for one, (out, err) in zip(both, outputs, strict=True):
        assert one.returncode == 0, out + err
        assert re.search(r"^\d+ passed in ", out, re.MULTILINE), out
        assert kernel.release in out
    assert sum(err.count("saving, ") for _, err in outputs) == 1
    assert {path.stat().st_uid for path in (user.home / "cache").rglob("*")} == {NOBODY}


def test_root_in_the_machine_is_nobody_outside(user: User) -> None:
    script = f"id -u; touch {user.home}/made; touch /etc/made && echo private"
    code, out, err = user.in_machine(script)
    assert (code, out) == (0, "0\nprivate\n"), err
    assert (user.home / "made").stat().st_uid == NOBODY
    assert not Path("/etc/made").exists()


def test_a_damaged_state_is_made_again(user: User) -> None:
    assert user.in_machine("true")[0] == 0
    (state,) = (path for path in (user.home / "cache/machines").iterdir() if path.is_dir())
    stamp = json.loads((state / "stamp.json").read_text())
    (state / "devices").write_bytes(b"not a machine")
    stamp["devices"] = hashlib.sha256(b"not a machine").hexdigest()
    (state / "stamp.json").write_text(json.dumps(stamp))
    code, out, err = user.in_machine("echo works")
    assert "the saved machine does not work" in err
    assert (code, out) == (0, "works\n"), err
    assert user.in_machine("true")[2] == ""


STOPS = """
import time
import pytest

SOURCE = '''
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
__u64 hits;
SEC("kprobe/do_nanosleep") int count(void *ctx) { __sync_fetch_and_add(&hits, 1); return 0; }
SEC("kprobe/__x64_sys_clock_nanosleep") int other(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
'''

@pytest.mark.parametrize("number", [0, 1])
def test_stops(bpf, bpf_netns, number):
    print("what the test prints", number)
    obj = bpf.load(SOURCE, name="count")
    obj.attach("count")
    time.sleep(0.001)
    breakpoint()
    assert obj.globals["hits"] == number
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probed function is of x86_64")
def test_pdb_at_the_terminal(user: User, kernel: Kernel) -> None:
    """A test of a kprobe stops in the machine, at its breakpoint and where it fails."""
    (user.home / "test_stops.py").write_text(STOPS)
    test = f"test_stops.py::test_stops[0-{kernel.release}]"
    with user.at_terminal("--bpf-kernel", str(user.home / "kernel"), "--pdb", test) as terminal:
        terminal.expect(r"\(Pdb\) ")
        terminal.type("p obj.globals['hits'] > 0, number")
        terminal.expect(r"\(True, 0\)\n")
        terminal.type("continue")
        assert "what the test prints 0" in terminal.expect(r"assert \d+ == 0(?s:.*)\(Pdb\) ")
        terminal.type("import os; print(os.uname().release, os.getuid())")
        terminal.expect(rf"\n{kernel.release} 0\n")
        terminal.type("quit")
        terminal.expect(r"1 failed.*\n")
        assert terminal.wait() == pytest.ExitCode.INTERRUPTED


def test_a_shell_where_it_stopped(user: User, kernel: Kernel) -> None:
    """In the machine, with the test's programs and namespaces, and the kernel's console."""
    (user.home / "test_shell.py").write_text(STOPS.replace("    breakpoint()\n", ""))
    options = ("--bpf-shell", "--bpf-console", "-s", "test_shell.py::test_stops[0]")
    with user.at_terminal("--bpf-kernel", str(user.home / "kernel"), *options) as terminal:
        terminal.expect(r"what the test prints 0\n(?s:.*)stopped here; exit goes on\n")
        enter = re.search(r"netns: (nsenter .*)", terminal.expect(r"netns: nsenter \S+\n"))
        assert enter
        terminal.type("uname -r; tty")
        terminal.expect(rf"{kernel.release}\n/dev/pts/\d+\n")
        terminal.type("echo from the test > /dev/kmsg")  # the console is another stream
        terminal.expect(r"\] from the test")
        terminal.type(f"{enter[1]} cat /proc/net/dev | tail -n +3 | cut -d: -f1; echo end")
        terminal.expect(r"\blo\nend\n")
        terminal.type("exit")
        terminal.expect(r"1 failed.*\n")
        assert terminal.wait() == pytest.ExitCode.TESTS_FAILED

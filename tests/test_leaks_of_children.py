"""A process that a test leaves behind with its programs is a leak."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

FORK = """
import os, signal

SOURCE = '''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("socket") int pass(struct __sk_buff *skb) { return -1; }
'''

def test_forks(bpf):
    bpf.load(SOURCE)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    with open("children", "a") as file:
        file.write(f"{child} ")

def test_closes(bpf):
    bpf.load(SOURCE)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
"""


DAEMON = """
import os, signal, subprocess, sys

SOURCE = '''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
         __type(key, __u32); __type(value, __u64); } counts SEC(".maps");
SEC("socket") int pass(struct __sk_buff *skb) { return -1; }
'''

def daemon(action):
    ready, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(ready)
            with open("children", "a") as file:
                file.write(f"{os.getpid()} ")
            action(said)
            signal.pause()
        os._exit(0)
    os.close(said)
    os.waitpid(child, 0)
    assert os.read(ready, 1) == b"x"
    os.close(ready)

def keep(said):
    os.write(said, b"x")

def test_forks(bpf):
    with bpf.load(SOURCE):
        daemon(keep)

def test_forks_again(bpf):
    bpf.load(SOURCE)
    daemon(keep)

def test_executes(bpf):
    bpf.load(SOURCE)
    code = (
        "import os, signal, sys; from pytest_bpf.kernel.sys import libbpf;"
        "libbpf.call('bpf_map_create', 2, b'kept', 4, 4, 1, None);"
        "os.write(int(sys.argv[1]), b'x');"
        "signal.pause()"
    )
    def execute(said):
        os.set_inheritable(said, True)
        os.execv(sys.executable, [sys.executable, "-c", code, str(said)])
    daemon(execute)

def test_has_a_daemon_without_programs(bpf):
    code = "import os, signal, sys; os.write(int(sys.argv[1]), b'x'); signal.pause()"
    def execute(said):
        os.set_inheritable(said, True)
        os.execv(sys.executable, [sys.executable, "-c", code, str(said)])
    daemon(execute)
"""


@pytest.mark.parametrize("strict", [False, True])
def test_a_daemon_that_keeps_programs_is_a_leak(strict: bool, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(DAEMON)
    result = pytester.runpytest_subprocess(*(["--bpf-strict"] if strict else []))
    for child in Path(pytester.path, "children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    result.assert_outcomes(passed=4, **{"errors" if strict else "warnings": 3})
    for test, kind in (("forks", "map"), ("forks_again", "map"), ("executes", "map")):
        result.stdout.fnmatch_lines([f"*test_{test} left open: {kind} * in process * (*"])
    assert "test_has_a_daemon_without_programs left" not in result.stdout.str()


@pytest.mark.parametrize("strict", [False, True])
def test_a_forked_child_that_keeps_programs_is_a_leak(
    strict: bool, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(FORK)
    result = pytester.runpytest_subprocess(*(["--bpf-strict"] if strict else []))
    for child in Path(pytester.path, "children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    if strict:
        result.assert_outcomes(passed=2, errors=1)
    else:
        result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*test_forks left open: program * in process * (*); close *"])
    assert "test_closes left" not in result.stdout.str()

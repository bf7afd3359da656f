"""Untrusted objects are opened in a process of their own first: its end is a sentence."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import threading
from pathlib import Path

import pytest

from pytest_bpf.errors import LoadError
from pytest_bpf.loader import Loader
from pytest_bpf.objects import elf
from pytest_bpf.objects.loading import quarantine
from pytest_bpf.objects.loading.quarantine import survive

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32);
         __type(value, __u32); __uint(pinning, LIBBPF_PIN_BY_NAME); } table SEC(".maps");
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
"""


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(quarantine, "_survivors", set())
    with Loader() as loader:
        return loader.compile(SOURCE).object.read_bytes()


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were forked."""
    made: list[int] = []
    fork = os.fork

    def noted() -> int:
        child = fork()
        made.append(child)
        return child

    monkeypatch.setattr(os, "fork", noted)
    return made


def crashing(content: bytes) -> bytes:
    """The same, whose variables have types that are not there: libbpf 1.1 dies of it."""
    btf = elf.sections(content)[".BTF"]
    start, changed = content.index(btf), bytearray(content)
    variable = struct.pack("=I", 14 << 24)
    at = content.find(variable, start)
    while 0 <= at < start + len(btf):
        changed[at + 6] |= 8
        at = content.find(variable, at + 1)
    return bytes(changed)


def test_what_is_rehearsed_needs_the_kernels_types(tmp_path: Path) -> None:
    """By a program's type libbpf loads the kernel's BTF, by its section it searches that."""
    source = SOURCE.replace(
        'SEC("xdp") int drop(struct xdp_md *', 'SEC("tp_btf/sys_enter") int f(void *'
    )
    with Loader() as loader:
        path = tmp_path / "typed.bpf.o"
        path.write_bytes(loader.compile(source).object.read_bytes())
        assert loader.load(path).programs["f"].type == "tracing"


def test_one_child_for_each_content(tmp_path: Path, content: bytes, children: list[int]) -> None:
    first, second, other = (tmp_path / name for name in ("a.bpf.o", "b.bpf.o", "c.bpf.o"))
    first.write_bytes(content)
    second.write_bytes(content)
    other.write_bytes(content + b"\0")
    with Loader() as loader:
        for path in (first, first, second):
            assert list(loader.load(path).programs) == ["drop"]
        assert len(children) == 1
        loader.load(other)
        assert len(children) == 2
        loader.load(first, max_entries={"table": 9}, pins={"table": None})
        assert len(children) == 2, "what is set up makes no other content"
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_what_was_compiled_here_needs_no_child(children: list[int]) -> None:
    with Loader() as loader:
        loader.load(SOURCE)
    assert children == []


def test_a_crash_of_libbpf_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "crash.bpf.o"
    path.write_bytes(crashing(content))
    with Loader() as loader:
        for _ in range(2):
            with pytest.raises(LoadError) as caught:
                loader.load(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_child_that_dies_or_hangs_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = Path("bad.bpf.o")

    def crash() -> None:
        ctypes.string_at(0)

    for _ in range(2):
        with pytest.raises(LoadError, match=r"bad\.bpf\.o: is damaged: libbpf crashes .*SIGSEGV"):
            survive(path, "crash", crash)
    monkeypatch.setattr(quarantine, "TIME_LIMIT", 0.1)
    with pytest.raises(LoadError, match=r"did not finish opening it within 0\.1 s"):
        survive(path, "hang", signal.pause)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_wait_leaves_no_child(children: list[int]) -> None:
    main = threading.main_thread().ident
    interrupt = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        survive(Path("bad.bpf.o"), "interrupted", signal.pause)
    interrupt.join()
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_errors_and_output_stay_in_the_child(capfd: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise LoadError("no")

    survive(Path("bad.bpf.o"), "refused", refuse)
    assert capfd.readouterr() == ("", "")

"""Functions of binaries: versions, IFUNCs, stripped files, and what is wrong with a name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import features
from pytest_bpf.objects import mangled
from pytest_bpf.objects.elf_symbols import DamagedElfError, usdt_probes
from pytest_bpf.objects.mangled import source_name
from pytest_bpf.objects.symbols import Binary, SymbolError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Load

UPROBE = "__u64 n;\n" + 'SEC("uprobe") int u(void *ctx) { __sync_fetch_and_add(&n, 1); return 0; }'
COOKIE = """
__u64 n, seen;
SEC("uprobe") int u(void *ctx) { n++; seen = bpf_get_attach_cookie(ctx); return 0; }
"""
SOURCE = """
#include <stdio.h>
static __attribute__((noinline)) int hidden_work(int n) { return printf("%d", n); }
int plain_work(int n) { return hidden_work(n) + 1; }
int (*volatile work)(int) = plain_work;
int main(void) { return work(1) > 9; }
"""
TWICE = """
static __attribute__((noinline)) int twice(int n) { __asm__ volatile(""); return n + 1; }
int (*volatile {0}_way)(int) = twice;
"""

needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "objcopy", "strip"))), reason="needs gcc and binutils"
)
pytestmark = pytest.mark.skipif(not features.attach("uprobe"), reason="this kernel has no uprobes")


def built(folder: Path, name: str = "demo", source: str = SOURCE, *options: str) -> Path:
    command = ["gcc", "-x", "c", "-g", "-O1", "-o", str(folder / name), "-", *options]
    subprocess.run(command, input=source, text=True, check=True)
    return folder / name


def hits(load: Load, binary: Path, **where: Any) -> int:
    obj = load(UPROBE)
    with obj.programs["u"].attach(binary=binary, **where):
        subprocess.run([binary], check=True, stdout=subprocess.DEVNULL)
    return int(obj.globals["n"])


@pytest.mark.parametrize(
    "name", ["pthread_create", "pthread_create@GLIBC_2.34", "pthread_create@@GLIBC_2.34"]
)
def test_a_function_with_several_versions(load: Load, name: str) -> None:
    if not hasattr(ctypes.CDLL("libc.so.6"), "gnu_get_libc_version"):
        pytest.skip("no glibc")
    obj = load(UPROBE)
    obj.programs["u"].attach(binary="libc.so.6", function=name, pid=os.getpid())
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert obj.globals["n"] == 1


def test_a_function_that_is_chosen_at_run_time(load: Load) -> None:
    libc = ctypes.CDLL("libc.so.6")
    obj = load(UPROBE)
    with obj.programs["u"].attach(binary="libc.so.6", function="strlen", pid=os.getpid()):
        libc.strlen(b"some text")
    assert obj.globals["n"] >= 1


@needs_tools
@pytest.mark.parametrize(
    ("function", "count"), [("plain_work", 1), ("hidden_work", 1), ("plain_work+0x0", 1)]
)
def test_functions_of_a_program(load: Load, tmp_path: Path, function: str, count: int) -> None:
    assert hits(load, built(tmp_path), function=function) == count


@needs_tools
@pytest.mark.parametrize("how", ["debug link", "build id"])
def test_a_stripped_program_with_its_debug_file(
    load: Load, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = built(tmp_path, "demo", SOURCE, "-Wl,--build-id=0x1234abcd")
    debug = tmp_path / "demo.debug"
    if how == "build id":
        monkeypatch.setattr("pytest_bpf.objects.elf_symbols.DEBUG_FOLDER", tmp_path / "lib")
        debug = tmp_path / "lib/.build-id/12/34abcd.debug"
        debug.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", binary, debug], check=True)
    subprocess.run(["strip", binary], check=True)
    if how == "debug link":
        link = f"--add-gnu-debuglink={debug.name}"
        subprocess.run(["objcopy", link, binary], check=True, cwd=tmp_path)
    assert hits(load, binary, function="hidden_work") == 1


@needs_tools
def test_what_is_wrong_with_a_name_is_said(load: Load, tmp_path: Path) -> None:
    binary = built(tmp_path)
    stripped = built(tmp_path, "stripped", SOURCE, "-static", "-s")
    folder = tmp_path / "twice"
    folder.mkdir()
    for name in "ab":
        built(folder, f"{name}.o", TWICE.replace("{0}", name), "-c")
    objects = [folder / "a.o", folder / "b.o"]
    double = folder / "double"
    main = "int main(void) { return 0; }"
    subprocess.run(
        ["gcc", "-o", double, *objects, "-x", "c", "-"], input=main, text=True, check=True
    )
    text = tmp_path / "text"
    text.write_text("no binary")
    program = load(UPROBE).programs["u"]
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"binary": binary, "function": "plain_wrok"}, "no function 'plain_wrok'; did you mean '"),
        ({"binary": binary, "function": "printf"}, "calls 'printf' of another library: pass that"),
        ({"binary": double, "function": "twice"}, "several functions 'twice': say which, offset="),
        ({"binary": stripped, "function": "plain_work"}, "is stripped and has no debug file"),
        ({"binary": text, "function": "main"}, "text is no ELF file"),
        ({"binary": tmp_path / "none", "function": "main"}, "there is no binary .*/none"),
        ({"binary": "libnone.so.9", "function": "f"}, "there is no binary libnone.so.9 among the"),
        ({"binary": "libc.so.6", "function": "pthread_create@GLIBC_9"}, "not in version GLIBC_9"),
        ({"binary": binary, "function": "main+0x1000"}, r"main\+0x1000 is not in that function of"),
        ({"binary": binary, "function": "plain_work-1"}, "no function 'plain_work-1'"),
        ({"binary": "libc.so.6"}, "pass function=, or offset= in the file"),
        ({"function": "malloc"}, "its section does not say where, pass binary="),
        ({"binary": binary, "function": "main", "pid": 2**22 + 5}, "there is no process 4194309"),
    )
    for where, words in wrong:
        with pytest.raises(AttachError, match=words):
            program.attach(**where)


def test_the_section_may_name_the_function(load: Load) -> None:
    obj = load(UPROBE.replace('"uprobe"', '"uprobe/libc.so.6:getppid"'))
    assert obj.programs["u"].auto_attachable
    obj.attach()
    ctypes.CDLL("libc.so.6").getppid()
    assert obj.globals["n"] >= 1


def test_a_uprobe_knows_its_cookie(load: Load) -> None:
    obj = load(COOKIE)
    where: dict[str, Any] = {"binary": "libc.so.6", "function": "getppid", "pid": os.getpid()}
    with obj.programs["u"].attach(**where, cookie=2**40 + 7):
        ctypes.CDLL("libc.so.6").getppid()
    assert (obj.globals["n"], obj.globals["seen"]) == (1, 2**40 + 7)


@needs_tools
@pytest.mark.skipif(not features.attach("uprobe_multi"), reason="no uprobe_multi links")
@pytest.mark.parametrize(("pattern", "count"), [("*_work", 2), ("plain_work", 1)])
def test_many_functions_by_one_link(load: Load, tmp_path: Path, pattern: str, count: int) -> None:
    binary = built(tmp_path)
    obj = load(UPROBE.replace('"uprobe"', '"uprobe.multi"'))
    with obj.programs["u"].attach(binary=binary, function=pattern) as link:
        subprocess.run([binary], check=True, stdout=subprocess.DEVNULL)
        assert link.info.type == "uprobe_multi"
    assert obj.globals["n"] == count
    with pytest.raises(AttachError, match=r"no function of .* matches 'nothing_\*'"):
        obj.programs["u"].attach(binary=binary, function="nothing_*")


@needs_tools
def test_a_damaged_binary_is_one_sentence(tmp_path: Path) -> None:
    content = built(tmp_path).read_bytes()
    chance = random.Random(20)
    damaged = tmp_path / "damaged"
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(4):
            where = chance.choice((chance.randrange(64), chance.randrange(len(content))))
            changed[where] = chance.randrange(256)
        damaged.write_bytes(bytes(changed[: chance.choice((len(content), 3000, 100))]))
        with contextlib.suppress(SymbolError):
            Binary.read(damaged).offset("hidden_work")
        with contextlib.suppress(DamagedElfError):
            usdt_probes(damaged)


@needs_tools
@pytest.mark.parametrize("installed", [True, False])
def test_newer_names_of_rust(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    if installed:
        pytest.importorskip("demangle")
    else:
        monkeypatch.setattr(mangled, "_demangle_rust", lambda: None)
    source = """
    int handler(int n) __asm__("_RNvCskwGfYPst2Cb_4demo7handler");
    int handler(int n) { return n; }
    int main(void) { return handler(0); }
    """
    binary = built(tmp_path, "rust", source)
    near = r"did you mean '_RNvCskwGfYPst2Cb_4demo7handler' \(demo::handler\)"
    words = near if installed else r"read with pip install 'pytest-bpf\[symbols\]'"
    with pytest.raises(AttachError, match=rf"has no function 'demo::handle'; .*{words}"):
        load(UPROBE).programs["u"].attach(binary=binary, function="demo::handle")


@needs_tools
@pytest.mark.skipif(not source_name("_Z1fv").endswith("()"), reason="needs libstdc++")
def test_names_of_cpp_and_rust_are_shown_as_in_the_source(load: Load, tmp_path: Path) -> None:
    source = """
    int parse(int n) __asm__("_ZN4demo5parseEi");
    int parse(int n) { return n; }
    int handler(int n) __asm__("_ZN4demo7handler17h0123456789abcdefE");
    int handler(int n) { return n; }
    int main(void) { return parse(0) + handler(0); }
    """
    program = load(UPROBE).programs["u"]
    binary = built(tmp_path, "mangled", source)
    for function, near in (
        ("demo::pars", r"'_ZN4demo5parseEi' \(demo::parse\(int\)\)"),
        ("handle", r"'_ZN4demo7handler17h0123456789abcdefE' \(demo::handler\)"),
        ("mian", "'main'"),
    ):
        words = rf"has no function '{function}'; did you mean {near}"
        with pytest.raises(AttachError, match=words):
            program.attach(binary=binary, function=function)

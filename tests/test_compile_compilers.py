from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cache import Cache
from pytest_bpf.compile import compile_source, compilers, find_compiler
from pytest_bpf.errors import CompileError

if TYPE_CHECKING:
    from pathlib import Path

CLANG = shutil.which("clang") or ""
SED = shutil.which("sed") or ""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, with nothing in it."""
    monkeypatch.delenv("PYTEST_BPF_CC", raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ziglang: what is on PATH is all there is."""
    monkeypatch.setitem(sys.modules, "ziglang", None)
    monkeypatch.setattr(compilers, "_wheel_folders", lambda _: ())


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


def reporting(path: Path, version: str) -> Path:
    """Make a clang that says it is of another version."""
    change = f'{SED} "s/clang version [0-9.]*/clang version {version}/"'
    return script(path, f'{CLANG} "$@" 2>&1 | {change} >&2')


@pytest.mark.usefixtures("no_wheel")
def test_of_equals_clang_on_path_comes_first(cache: Cache, programs: Path) -> None:
    (programs / "clang").symlink_to(CLANG)
    (programs / "clang-99").symlink_to(CLANG)
    found = find_compiler(cache=cache)
    assert found.command == (str(programs / "clang"),)
    assert found.name == "clang"
    assert str(found) == f"clang {found.version}"
    assert found.version[0].isdigit()


def test_the_newest_clang_wins(cache: Cache, programs: Path) -> None:
    (programs / "clang").symlink_to(CLANG)
    for number in ("9", "13", "101"):
        reporting(programs / f"clang-{number}", f"{number}.1.0")
    (programs / "clang-format-200").symlink_to(CLANG)
    compiler = find_compiler(cache=cache)
    assert compiler.name == "clang-101"
    assert compiler.release() == (101, 1, 0)


def test_a_newer_zig_wins_over_an_older_clang(cache: Cache, programs: Path) -> None:
    reporting(programs / "clang", "3.9.0")
    assert find_compiler(cache=cache).name == "zig"


@pytest.mark.usefixtures("no_wheel")
def test_a_clang_without_the_back_end_is_passed_over(cache: Cache, programs: Path) -> None:
    script(programs / "clang", "echo \"error: unknown target triple 'bpfel'\" >&2; exit 1")
    (programs / "clang-15").symlink_to(CLANG)
    assert find_compiler(cache=cache).name == "clang-15"
    with pytest.raises(CompileError, match=r"does not compile for BPF: .*unknown target"):
        find_compiler("clang", cache=cache)


def test_the_wheel_is_last(cache: Cache, programs: Path) -> None:
    found = find_compiler(cache=cache)
    assert found.name == "zig"
    assert str(found) == f"zig's clang {found.version}"
    assert compile_source("int x = 1;\n", compiler=found, cache=cache).object.exists()
    assert not list(programs.iterdir())


def test_the_environment_chooses(
    cache: Cache, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "clang").symlink_to(CLANG)
    monkeypatch.setenv("PYTEST_BPF_CC", "zig")
    assert find_compiler(cache=cache).name == "zig"
    assert find_compiler("clang", cache=cache).name == "clang"
    monkeypatch.setenv("PYTEST_BPF_CC", CLANG)
    assert find_compiler(cache=cache).command == (CLANG,)


def test_a_choice_that_is_not_there(
    cache: Cache, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "clang").symlink_to(CLANG)
    with pytest.raises(
        CompileError,
        match=r"'clagn' is not on PATH; did you mean 'clang'\?",
    ):
        find_compiler("clagn", cache=cache)
    monkeypatch.setenv("PYTEST_BPF_CC", "/no/such/clang")
    with pytest.raises(CompileError, match=r"PYTEST_BPF_CC\) is no program that can be run"):
        find_compiler(cache=cache)


@pytest.mark.usefixtures("programs")
def test_a_choice_that_is_no_compiler(cache: Cache, tmp_path: Path) -> None:
    silent = script(tmp_path / "silent", "exit 0")
    with pytest.raises(CompileError, match=r"does not compile for BPF: exit code 0"):
        find_compiler(silent, cache=cache)
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF and no more")
    broken.chmod(0o700)
    with pytest.raises(CompileError, match="broken cannot be run"):
        find_compiler(broken, cache=cache)


@pytest.mark.usefixtures("no_wheel")
def test_a_program_is_asked_once(cache: Cache, programs: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    program = script(programs / "clang", f'echo x >>{asked}; exec {CLANG} "$@"')
    first = find_compiler(cache=cache)
    assert find_compiler(cache=cache) == first
    assert asked.read_text() == "x\n"
    os.utime(program, (1, 1))
    upgraded = find_compiler(cache=cache)
    assert upgraded.identity != first.identity
    assert asked.read_text() == "x\nx\n"


@pytest.mark.usefixtures("programs")
def test_no_compiler_at_all(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ziglang'] = None\n"
        "from pytest_bpf.compile import compile_source\n"
        "compile_source('int x = 1;\\n')\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTEST_BPF_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = done.stderr.strip().rpartition("\n")[2]
    assert last == (
        "pytest_bpf.errors.UnavailableError: no compiler with the BPF back end (no clang or "
        "clang-NN on PATH, no ziglang wheel); install clang (apt install clang) or the ziglang "
        "wheel (pip install 'pytest-bpf[compiler]')"
    )

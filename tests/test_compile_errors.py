from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from pytest_bpf.cache import Cache
from pytest_bpf.compile import Compiler, compile_source, find_compiler
from pytest_bpf.errors import CompileError


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["clang", "zig"])
def compiler(request: pytest.FixtureRequest, cache: Cache) -> Compiler:
    return find_compiler(request.param, cache=cache)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    return tmp_path


def wrapped(compiler: Compiler, folder: Path, script: str) -> Compiler:
    """Return a compiler whose program is a shell script."""
    program = folder / "wrapper"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    return replace(compiler, command=(str(program),))


def refusal(
    source: Path | str, compiler: Compiler, cache: Cache, **options: object
) -> CompileError:
    with pytest.raises(CompileError) as caught:
        compile_source(source, compiler=compiler, cache=cache, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value).splitlines()[0]
    assert not list((cache.folder / "tmp").iterdir())
    return caught.value


@pytest.mark.parametrize(
    ("errors", "ending"),
    [
        (1, ""),
        (2, " (and 1 more error)"),
        (3, " (and 2 more errors)"),
        (50, " (and 49 more errors)"),
    ],
)
def test_the_first_error_and_how_many(
    compiler: Compiler, cache: Cache, errors: int, ending: str
) -> None:
    path = Path("tests/count.bpf.c")
    path.write_text(
        "\n" * 11 + "".join(f"int f{i}(void) {{ return nothing{i}; }}\n" for i in range(errors))
    )
    error = refusal(path, compiler, cache)
    assert str(error).startswith("tests/count.bpf.c:12: use of undeclared identifier 'nothing0'")
    first = str(error).partition("\n")[0]
    assert first.endswith(ending or "'nothing0'")
    assert error.output.startswith("tests/count.bpf.c:12:")
    assert f"{errors} error" in error.output or "too many errors" in error.output


def test_an_absolute_path_elsewhere(
    compiler: Compiler, cache: Cache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bad.bpf.c").write_text("int x = y;\n")
    monkeypatch.chdir("/usr")
    assert str(refusal(folder / "bad.bpf.c", compiler, cache)).startswith(f"{folder}/bad.bpf.c:1:")


def test_an_error_in_a_header(compiler: Compiler, cache: Cache) -> None:
    Path("tests/own.h").write_text("\nint x = y;\n")
    Path("tests/a.bpf.c").write_text('#include "own.h"\n')
    assert str(refusal("tests/a.bpf.c", compiler, cache)).startswith("tests/own.h:2: ")


def test_an_error_in_text(compiler: Compiler, cache: Cache) -> None:
    error = refusal("int a;\nint x = y;\n", compiler, cache, name="drop")
    assert str(error) == "drop.bpf.c:2: use of undeclared identifier 'y'"
    assert error.output.startswith("drop.bpf.c:2:9: error: use of undeclared identifier 'y'")


def test_a_missing_header(compiler: Compiler, cache: Cache) -> None:
    error = refusal('#include "mine.h"\n', compiler, cache)
    assert str(error) == "inline.bpf.c:1: 'mine.h' file not found"


def test_an_unknown_flag(compiler: Compiler, cache: Cache) -> None:
    error = refusal("int x;\n", compiler, cache, flags=["-fno-such-thing"])
    assert str(error) == "inline.bpf.c: unknown argument: '-fno-such-thing'"


def test_a_crash(compiler: Compiler, cache: Cache) -> None:
    before = set(Path("/tmp").glob("inline-*"))
    error = refusal("#pragma clang __debug crash\nint x;\n", compiler, cache)
    assert "crashed with SIG" in str(error)
    assert str(error).endswith("while it compiled inline.bpf.c")
    assert set(Path("/tmp").glob("inline-*")) == before


def test_a_killed_compiler(compiler: Compiler, cache: Cache, folder: Path) -> None:
    killed = wrapped(compiler, folder, "kill -9 $$")
    error = refusal("int x;\n", killed, cache)
    assert str(error) == (
        f"{compiler} was killed by SIGKILL (out of memory?) while it compiled inline.bpf.c"
    )


def test_a_compiler_that_only_fails(compiler: Compiler, cache: Cache, folder: Path) -> None:
    for script, code, said in (
        ("echo no licence; exit 3", 3, "no licence"),
        ("exit 3", 3, "it printed nothing"),
        ("exit 0", 0, "it printed nothing"),
    ):
        error = refusal("int x;\n", wrapped(compiler, folder, script), cache)
        assert str(error) == f"inline.bpf.c: {compiler} ended with code {code} ({said})"


def test_a_hung_compiler(compiler: Compiler, cache: Cache, folder: Path) -> None:
    os.mkfifo("held")
    hung = wrapped(compiler, folder, f"exec 9>{folder}/held; echo thinking; sleep 1000; true")
    with os.fdopen(os.open("held", os.O_RDONLY | os.O_NONBLOCK), "rb") as held:
        error = refusal("int x;\n", hung, cache, timeout=1)
        assert all_gone(held)
    assert str(error) == f"inline.bpf.c: {compiler} did not finish in 1 s and was killed"
    assert error.output == "thinking\n"


def test_an_interrupted_compilation(compiler: Compiler, folder: Path) -> None:
    """Ctrl-C while the compiler runs leaves neither it nor its files."""
    os.mkfifo("held")
    slow = wrapped(compiler, folder, f"exec 9>{folder}/held; echo >&9; sleep 1000; true")
    code = (
        "from pathlib import Path\n"
        "from pytest_bpf.cache import Cache\n"
        "from pytest_bpf.compile import Compiler, compile_source\n"
        f"compile_source('int x;\\n', compiler={slow!r}, cache=Cache(Path('c').absolute()))\n"
    )
    with (
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process,
        Path("held").open("rb") as held,
    ):
        assert held.readline() == b"\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert all_gone(held)
    assert said.strip().endswith(b"KeyboardInterrupt")
    assert not list((folder / "c" / "tmp").iterdir())


def all_gone(held: BinaryIO) -> bool:
    """Say whether every process that holds the other end of a pipe ends within 10 s."""
    readable, _, _ = select.select([held], [], [], 10)
    return bool(readable) and held.read() == b""


def test_a_missing_file(compiler: Compiler, cache: Cache) -> None:
    Path("tests/count.bpf.c").touch()
    Path("tests/test_count.py").touch()
    assert str(refusal("tests/cuont.bpf.c", compiler, cache)) == (
        "tests/cuont.bpf.c does not exist; did you mean 'count.bpf.c'?"
    )
    assert str(refusal("nowhere/a.bpf.c", compiler, cache)) == (
        "nowhere/a.bpf.c does not exist: there is no folder nowhere"
    )
    Path("tests/count.bpf.c").unlink()
    assert str(refusal("tests/cuont.bpf.c", compiler, cache)) == (
        "tests/cuont.bpf.c does not exist: the folder has no .c file"
    )


def test_a_folder(compiler: Compiler, cache: Cache) -> None:
    assert str(refusal("tests", compiler, cache)).startswith("tests is a folder")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"int x; // \xe9\n", "is not UTF-8 text, not a C source (byte 0xe9 at offset 10)"),
        (b"\x7fELF\x02\x01\x01\xff", "is an ELF object, not a C source"),
    ],
)
def test_a_file_that_is_no_source(
    compiler: Compiler, cache: Cache, content: bytes, said: str
) -> None:
    Path("a.bpf.c").write_bytes(content)
    assert str(refusal("a.bpf.c", compiler, cache)).startswith(f"a.bpf.c {said}")


def test_text_that_is_no_source(compiler: Compiler, cache: Cache) -> None:
    assert "is empty" in str(refusal("\n", compiler, cache))
    assert "not valid Unicode" in str(refusal("int x;\n// \udcff\n", compiler, cache))


def test_a_path_with_a_zero_byte(compiler: Compiler, cache: Cache) -> None:
    assert "cannot be read" in str(refusal("a\0b.bpf.c", compiler, cache))


def test_a_missing_include_folder(compiler: Compiler, cache: Cache, folder: Path) -> None:
    error = refusal("int x;\n", compiler, cache, include_dirs=["nowhere"])
    assert str(error) == f"the include folder {folder}/nowhere does not exist"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace of its own")
@pytest.mark.parametrize("name", ["clang", "zig"])
def test_without_libbpf_dev(folder: Path, name: str) -> None:
    code = (
        "from pytest_bpf.compile import compile_source, find_compiler\n"
        f"compile_source('#include <bpf/bpf_helpers.h>\\n', compiler=find_compiler({name!r}))\n"
    )
    hide = 'mount -t tmpfs none /usr/include/bpf && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-c", code],
        env={**os.environ, "PYTEST_BPF_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.strip().rpartition("\n")[2] == (
        "pytest_bpf.errors.UnavailableError: inline.bpf.c:1: 'bpf/bpf_helpers.h' file not found; "
        "install libbpf-dev (Debian, Ubuntu), which has it"
    )
    assert shutil.which("unshare")
    assert Path("/usr/include/bpf/bpf_helpers.h").exists()

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from pytest_bpf.cache import Cache, digest, open_cache
from pytest_bpf.compile import compile_source
from pytest_bpf.errors import BpfError, UnavailableError
from tests.nobody import AS_NOBODY, NOBODY

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("PYTEST_BPF_CACHE", raising=False)
    return tmp_path


def test_where_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_cache().folder == home / ".cache" / "pytest-bpf"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert open_cache().folder == home / "xdg" / "pytest-bpf"
    monkeypatch.chdir(home)
    monkeypatch.setenv("PYTEST_BPF_CACHE", "mine")
    assert open_cache().folder == home / "mine"
    assert stat.S_IMODE(open_cache().folder.stat().st_mode) == 0o700


def test_a_folder_that_everyone_may_write_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = home / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(shared))
    assert open_cache().folder == home / ".cache" / "pytest-bpf"


def test_a_file_in_its_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(home / "file"))
    assert open_cache().folder == home / ".cache" / "pytest-bpf"


def test_nothing_is_open_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        compile_source('#include "vmlinux.h"\n', cache=Cache(tmp_path))
    finally:
        os.umask(before)
    paths = list(tmp_path.rglob("*"))
    assert {path.name for path in paths} > {"objects", "entries", "sources", "vmlinux.h"}
    assert not [path for path in paths if path.stat().st_mode & 0o022]


SCRIPT = """
import sys
from pytest_bpf.compile import compile_source
from pytest_bpf.errors import BpfError
try:
    print(compile_source("int x = 1;\\n").object)
except BpfError as error:
    print(type(error).__name__, error)
"""


def as_nobody(**environ: str) -> str:
    command = [*AS_NOBODY, sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command,
        cwd="/",
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr
    return done.stdout.strip()


@needs_root
def test_an_unwritable_folder(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        os.chown(temporary, NOBODY, NOBODY)
        made = Path(as_nobody(PYTEST_BPF_CACHE=str(tmp_path), HOME="/root", TMPDIR=temporary))
        folder = Path(temporary, f"pytest-bpf-{NOBODY}")
        assert made.parent.parent == folder
        assert made.exists()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(tmp_path.iterdir())


@needs_root
def test_a_temporary_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        os.chown(temporary, NOBODY, NOBODY)
        trap = Path(temporary, f"pytest-bpf-{NOBODY}")
        trap.mkdir()
        trap.chmod(0o775)
        os.chown(trap, 1, NOBODY)  # writable by the group, and not ours
        said = as_nobody(PYTEST_BPF_CACHE=str(tmp_path), HOME="/root", TMPDIR=temporary)
        assert said.startswith("UnavailableError no private, writable folder")
        assert said.endswith("set PYTEST_BPF_CACHE to one")
        assert not list(trap.iterdir())


def test_no_home_at_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    assert open_cache().folder == home / f"pytest-bpf-{os.geteuid()}"
    (home / "gone").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home / "file"))
    (home / "file").touch()
    with pytest.raises(UnavailableError, match="PYTEST_BPF_CACHE"):
        open_cache()


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "objects").touch()  # stands where a folder must be
    with pytest.raises(BpfError, match=r"cannot write to the cache .*set PYTEST_BPF_CACHE"):
        Cache(tmp_path).write(b"x", "objects", "x")
    assert not list((tmp_path / "tmp").iterdir())


def test_pruning_takes_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    now = time.time()
    for age in (1, 2, 3, 4):
        path = cache.write(b"x" * 100, "objects", str(age))
        os.utime(path, (now - age * 10_000,) * 2)
    killed = cache.path("tmp", "killed", "object")
    killed.write_bytes(b"x")
    os.utime(killed.parent, (0, 0))
    assert cache.prune(limit=250) == 200
    assert sorted(path.name for path in (tmp_path / "objects").iterdir()) == ["1", "2"]
    assert not killed.parent.exists()


def test_pruning_leaves_kernels_and_machines_alone(tmp_path: Path) -> None:
    kept = Cache(tmp_path).path("machines", "some", "memory")
    kept.write_bytes(b"x" * 300)
    os.utime(kept, (0, 0))
    assert Cache(tmp_path).prune(limit=0, young=-10) == 0
    assert kept.exists()


def test_pruning_spares_what_is_in_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = compile_source("int x = 1;\n", cache=cache).object
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))
    assert compile_source("int x = 1;\n", cache=cache).cached
    assert made.stat().st_mtime == 0
    cache.prune(limit=0)
    assert made.exists()
    assert compile_source("int x = 1;\n", cache=cache).cached
    cache.prune(limit=0, young=-10)
    assert not made.exists()
    assert not compile_source("int x = 1;\n", cache=cache).cached


def test_pruning_is_seldom(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.prune_daily()
    stamp = (tmp_path / "pruned").stat().st_mtime_ns
    cache.prune_daily()
    assert (tmp_path / "pruned").stat().st_mtime_ns == stamp
    os.utime(tmp_path / "pruned", (0, 0))
    cache.prune_daily()
    assert (tmp_path / "pruned").stat().st_mtime_ns >= stamp


def test_one_at_a_time(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    order = []

    def wait() -> None:
        with cache.lock("x"):
            order.append("second")

    thread = threading.Thread(target=wait)
    with cache.lock("x"):
        thread.start()
        with cache.lock("y"):
            order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_digest_knows_where_parts_end() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab", b"c") == digest(b"ab", "c")

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from pytest_bpf.cache import (
    Cache,
    choose,
    chosen_folder,
    digest,
    forget_old,
    mark_used,
    open_cache,
)
from pytest_bpf.compile import compile_source
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernels import lookup
from pytest_bpf.kernels.kernel import kernels_in
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
    with pytest.warns(UserWarning, match=r"shared is not used: others than its owner can write"):
        assert open_cache().folder == home / ".cache" / "pytest-bpf"


def test_a_folder_that_was_right_is_looked_at_again_when_it_has_changed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = home / "mine", home / "other"
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(mine))
    assert open_cache().folder == open_cache().folder == mine
    mine.chmod(0o777)
    with pytest.warns(UserWarning, match=r"mine is not used: others than its owner can write"):
        assert open_cache().folder != mine
    mine.chmod(0o700)
    assert open_cache().folder == mine
    mine.rename(other)
    mine.symlink_to(other)
    with pytest.warns(UserWarning, match=r"mine is not used: .*symbolic link"):
        assert open_cache().folder != mine


def test_a_folder_of_the_group_or_behind_a_link_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, link = home / "group", home / "link"
    group.mkdir()
    group.chmod(0o770)
    link.symlink_to(home)
    for choice, fault in ((group, "(mode 0770)"), (link, "it is a symbolic link")):
        monkeypatch.setenv("PYTEST_BPF_CACHE", str(choice))
        with pytest.warns(UserWarning, match=f"{choice.name} is not used: .*{re.escape(fault)}"):
            assert open_cache().folder == home / ".cache" / "pytest-bpf"


def test_a_folder_below_one_that_others_write_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "above").mkdir()
    (home / "above").chmod(0o777)
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(home / "above/mine"))
    with pytest.warns(UserWarning, match=r"above/mine is not used: .*/above: others than its"):
        assert open_cache().folder == home / ".cache" / "pytest-bpf"
    assert not list((home / "above").iterdir())


@needs_root
def test_root_with_the_home_of_a_user_leaves_nothing_there(home: Path) -> None:
    """As by ``sudo -E``."""
    os.chown(home, NOBODY, NOBODY)
    with pytest.warns(UserWarning, match=f"it belongs to user {NOBODY}, not to 0"):
        assert open_cache().folder == Path(tempfile.gettempdir(), "pytest-bpf-0")
    assert not list(home.iterdir())


@needs_root
def test_an_object_that_somebody_else_put_there_is_compiled_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    source = "int x = 1;\n"
    first = compile_source(source, cache=cache)
    assert compile_source(source, cache=cache).cached
    os.chown(first.object, NOBODY, NOBODY)
    with pytest.warns(UserWarning, match=rf"{first.object.name} is not used: it belongs to user"):
        again = compile_source(source, cache=cache)
    assert not again.cached
    assert again.object.stat().st_uid == 0


@needs_root
@pytest.mark.parametrize("change", ["owner", "mode", "folder"])
def test_a_kernel_that_somebody_else_put_there_is_not_booted(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(tmp_path))
    place = ("kernels", "6.9", "boot", "vmlinuz-6.9")
    image = Cache(tmp_path).write(b"no kernel", *place)
    root = tmp_path / "kernels/6.9"
    with pytest.raises(BpfError, match=f"{image} is not a kernel image"):  # it is looked at
        list(kernels_in(root))
    if change == "owner":
        os.chown(image, NOBODY, NOBODY)
    else:
        (image if change == "mode" else image.parent).chmod(0o775)
    with pytest.warns(UserWarning, match="is not used: (it belongs to|others than its owner)"):
        assert list(kernels_in(root)) == []
    with pytest.raises(BpfError, match=f"{image} is not used: it may be somebody else's"):
        lookup.find(str(image))


@pytest.mark.parametrize("folder", ["objects", "entries", "compilers", "sources", "machines"])
def test_a_folder_of_the_cache_that_is_a_link(tmp_path: Path, folder: str) -> None:
    cache = Cache(tmp_path / "cache")
    cache.path("objects", "x")
    (tmp_path / "trap").mkdir()
    shutil.rmtree(cache.folder / folder, ignore_errors=True)
    (cache.folder / folder).symlink_to(tmp_path / "trap")
    with pytest.warns(UserWarning, match=f"{folder} is not used: it is a symbolic link"):
        assert cache.read(folder, "x") is None
    with pytest.raises(BpfError, match=f"{folder} is not used: it may be somebody else's; remove"):
        cache.write(b"", folder, "x")
    assert not list((tmp_path / "trap").iterdir())


def test_a_file_in_its_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(home / "file"))
    assert open_cache().folder == home / ".cache" / "pytest-bpf"


def test_nothing_is_open_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        compile_source('#include "vmlinux.h"\n', cache=Cache(tmp_path / "new/cache"))
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
    assert "Traceback" not in done.stderr
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
    killed = cache.path("tmp", "tmp1234", "object")
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


def test_what_is_old_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    """Listing a folder is no use of it, though it changes the time of its last access."""
    cache = Cache(tmp_path)
    names = ("used", "listed", "file", "read")
    for name in names[:2]:
        cache.path("kinds", name, "content").write_bytes(b"x")
    for name in names[2:]:
        cache.path("kinds", name).write_bytes(b"x")
    places = [tmp_path / "kinds" / name for name in names]
    for place in places:
        os.utime(place, (0, 0))
    mark_used(places[0])
    os.utime(places[1], (time.time(), 0))
    os.utime(places[3], (time.time(), 0))
    forget_old(tmp_path / "kinds", 1000)
    assert {path.name for path in (tmp_path / "kinds").iterdir()} == {"used", "read"}


def test_so_many_stay_that_were_used_last(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "newer", "old", "oldest")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, time.time() - age))
    forget_old(tmp_path, 1000, most=2)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "newer"}


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
    thread.join(120)
    assert order == ["first", "second"]


def test_digest_knows_where_parts_end() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab", b"c") == digest(b"ab", "c")


def test_the_workspace_of_a_killed_process_is_swept_and_no_other(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    script = (
        "import sys, time; from pathlib import Path; from pytest_bpf.cache import Cache\n"
        "with Cache(Path(sys.argv[1])).workspace() as folder:\n"
        "    print(folder, flush=True); time.sleep(1000)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        with cache.workspace() as own:
            assert cache.sweep() == []
            process.kill()
            process.wait(60)
            assert folder.exists()
            assert cache.sweep() == [folder]
            assert own.exists()
    assert not list((tmp_path / "tmp").iterdir())


@needs_root
@pytest.mark.parametrize("size", ["64k", "1m"])
def test_a_full_disk_is_one_sentence(tmp_path: Path, size: str) -> None:
    """The types of the kernel take 3 MB."""
    script = f"""
mount -t tmpfs -o size={size},mode=700 tmpfs "$0" && exec "$1" -c "$2"
"""
    python = """
import sys
from pytest_bpf.compile import compile_source
from pytest_bpf.errors import BpfError
try:
    compile_source('#include "vmlinux.h"\\n')
except BpfError as error:
    print(error)
"""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(tmp_path), sys.executable, python],
        env={**os.environ, "PYTEST_BPF_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    sentence = r"cannot write to the cache .*: No space left on device; make .*\n"
    assert re.fullmatch(sentence, done.stdout)


def test_a_session_s_choice_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(tmp_path / "environment"))
    end_outer = choose(tmp_path / "outer")
    try:
        end_inner = choose(None)
        assert chosen_folder() == tmp_path / "environment"
        end_inner()
        assert chosen_folder() == tmp_path / "outer"
    finally:
        end_outer()
    assert os.environ["PYTEST_BPF_CACHE"] == str(tmp_path / "environment")


def test_two_sessions_in_one_process_have_a_cache_each(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_BPF_CACHE", raising=False)
    pytester.makepyfile(
        "from pytest_bpf.cache import chosen_folder\ndef test_it(): print(chosen_folder())"
    )
    pytester.inline_run("-s", "--bpf-cache-dir=one").assertoutcome(passed=1)
    pytester.inline_run("-s", "--bpf-cache-dir=two").assertoutcome(passed=1)
    assert "PYTEST_BPF_CACHE" not in os.environ

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_bpf.cgroup import Cgroup, cgroupfs
from pytest_bpf.errors import PlaceError
from pytest_bpf.netns import Namespace, pair
from tests.nobody import AS_NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making cgroups needs root")


def cgroup_of(process: str | int = "self") -> str:
    lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    return next(line for line in lines if line.startswith("0:")).rpartition("/")[2]


def test_the_process_is_inside_during_run_and_back_after() -> None:
    before = cgroup_of()
    with Cgroup() as cgroup:
        assert cgroup.run(cgroup_of) == cgroup.path.name
        assert cgroup_of() == before
        with pytest.raises(ZeroDivisionError):
            cgroup.run(divmod, 1, 0)
        assert cgroup_of() == before
        assert cgroup.id == cgroup.path.stat().st_ino == os.fstat(cgroup.fileno()).st_ino
    assert not cgroup.path.exists()


def test_runs_nest() -> None:
    with Cgroup() as outer, Cgroup() as inner:

        def nested() -> list[str]:
            return [cgroup_of(), inner.run(cgroup_of), outer.run(cgroup_of), cgroup_of()]

        a, b = outer.path.name, inner.path.name
        assert outer.run(nested) == [a, b, a, a]


def test_another_thread_cannot_take_the_process_elsewhere() -> None:
    with Cgroup() as one, Cgroup() as other, Namespace() as namespace:
        assert one.run(lambda: namespace.run(lambda: one.run(cgroup_of))) == one.path.name
        with pytest.raises(PlaceError, match="another thread keeps this process in the cgroup"):
            one.run(lambda: namespace.run(lambda: other.run(cgroup_of)))
        assert other.run(cgroup_of) == other.path.name


def test_threads_share_a_cgroup_until_the_last_has_left() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        leave.wait(120)

    before = cgroup_of()
    with Cgroup() as cgroup:
        thread = threading.Thread(target=cgroup.run, args=(stay,))
        thread.start()
        assert entered.wait(120)
        cgroup.run(int)
        assert cgroup_of() == cgroup.path.name
        leave.set()
        thread.join()
        assert cgroup_of() == before


def test_a_started_process_is_inside_and_dies_on_close() -> None:
    with Cgroup() as cgroup:
        child = cgroup.popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert cgroup_of(child.pid) == cgroup_of(grandchild) == cgroup.path.name
    assert child.returncode == -signal.SIGKILL
    assert not Path(f"/proc/{grandchild}/cwd").exists()


def test_a_process_is_in_a_cgroup_and_a_namespace_either_way() -> None:
    with Cgroup() as cgroup, Namespace() as namespace:
        for child in (
            namespace.run(cgroup.popen, ["sleep", "1000"]),
            cgroup.run(namespace.popen, ["sleep", "1000"]),
        ):
            assert cgroup_of(child.pid) == cgroup.path.name
            assert Path(f"/proc/{child.pid}/ns/net").stat().st_ino == namespace.inode


def test_sockets_belong_to_the_cgroup_they_were_made_in() -> None:
    with Cgroup() as cgroup, pair() as (left, _):
        inside, outside = cgroup.run(left.socket), left.socket()
        with inside, outside:
            for end in (inside, outside):
                end.bind((str(left.ipv4), 0))
                end.listen()
            shown = left.popen(["ss", "-tlneH"], stdout=subprocess.PIPE, text=True)
            lines = shown.communicate(timeout=60)[0].splitlines()
            ports = [
                int(line.split()[3].rpartition(":")[2])
                for line in lines
                if f"/{cgroup.path.name} " in f"{line} "
            ]
            assert len(lines) == 2
            assert ports == [inside.getsockname()[1]]


def test_children_close_with_their_parent() -> None:
    with Cgroup() as cgroup:
        child = cgroup.child("first").child("second")
        assert child.path == cgroup.path / "first" / "second"
        process = child.popen(["sleep", "1000"])
        assert child.run(cgroup_of) == "second"
        with pytest.raises(PlaceError, match="exists; choose another name"):
            cgroup.child("first")
        for name in ("", "..", "a/b", "cgroup.procs"):
            with pytest.raises(PlaceError, match="is no name for a cgroup"):
                cgroup.child(name)
    assert process.returncode == -signal.SIGKILL
    assert not cgroup.path.exists()
    with pytest.raises(PlaceError, match="is closed"):
        child.fileno()
    with pytest.raises(PlaceError, match="is closed"):
        cgroup.run(int)
    cgroup.close()


def test_it_cannot_be_closed_from_inside() -> None:
    with Cgroup() as cgroup:
        with pytest.raises(PlaceError, match="can only be closed from outside"):
            cgroup.run(cgroup.close)
        assert cgroup.path.exists()


def test_signals_do_where_there_is_no_kill_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda p: p.name != "cgroup.kill" and exists(p))
    with Cgroup() as cgroup:
        process = cgroup.child("below").run(lambda: subprocess.Popen(["sleep", "1000"]))
    assert process.wait(60) == -signal.SIGKILL
    assert not cgroup.path.is_dir()


def test_descriptors_and_threads_are_given_back() -> None:
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(10):
        with Cgroup() as cgroup:
            cgroup.popen(["true"]).wait(60)
            cgroup.child("child").popen(["sleep", "1000"])
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


def test_a_script_that_ends_without_closing_leaves_nothing() -> None:
    script = "from pytest_bpf.cgroup import Cgroup; c = Cgroup(); print(c.path)"
    path = subprocess.check_output([sys.executable, "-c", script], text=True).strip()
    assert "pytest-bpf-" in path
    assert not Path(path).exists()


def in_private_mounts(commands: str, python: str) -> str:
    """Run Python code after shell commands in a mount namespace of its own."""
    script = f'set -e\n{commands}\nexec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, python],
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout or done.stderr).strip().splitlines()[-1]


MAKE = "from pytest_bpf.cgroup import Cgroup\nwith Cgroup() as c: c.run(print, c.path.parent)"


def test_a_unified_mount_is_found_too(tmp_path: Path) -> None:
    said = in_private_mounts(
        f"umount -l {cgroupfs.hierarchy().path}; mount -t cgroup2 none {tmp_path}", MAKE
    )
    own = cgroupfs.current().relative_to(cgroupfs.hierarchy().path)
    assert said == str(tmp_path / own)


def test_without_a_usable_mount_the_sentence_says_so() -> None:
    top = cgroupfs.hierarchy().path
    error = "pytest_bpf.errors.UnavailableError: "
    assert in_private_mounts(f"mount -o remount,bind,ro {top}", MAKE) == (
        f"{error}cgroup v2 is mounted read-only ({top}); remount it rw"
    )
    assert in_private_mounts(f"umount -l {top}", MAKE).startswith(
        f"{error}cgroup v2 is not mounted; "
    )


def test_without_privilege_the_sentence_says_what_is_missing() -> None:
    command = [*AS_NOBODY]
    done = subprocess.run(
        [*command, sys.executable, "-B", "-c", MAKE], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert re.fullmatch(
        r"pytest_bpf\.errors\.PrivilegeError: making a cgroup in /\S+ needs CAP_DAC_OVERRIDE, "
        r"which this process \(uid 65534\) does not have; run as root or delegate the cgroup",
        last,
    )

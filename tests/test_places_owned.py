from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_bpf.cgroup import Cgroup, cgroupfs
from pytest_bpf.kernel.sys import bpffs, names
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.kernel.sys.mountinfo import mounts
from pytest_bpf.netns.places import sweep

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups and mounts need root")


def test_a_name_tells_its_owner_apart_from_a_later_process() -> None:
    name = names.unique_name()
    prefix, namespace, pid, start, number = name.rsplit("-", 4)
    assert (prefix, int(pid)) == ("pytest-bpf", os.getpid())
    assert not names.is_stale(name)
    assert names.is_stale(f"{prefix}-{namespace}-{pid}-{int(start) + 1}-{number}")
    assert names.unique_name() != name


def test_other_names_are_nobodys() -> None:
    _, namespace, pid, start, number = names.unique_name().rsplit("-", 4)
    for name in (
        "pytest-bpf",
        "system.slice",
        f"pytest-bpf-{namespace}-{pid}-1",
        f"pytest-bpf-{namespace}-{pid}-1-0-more",
        f"my-pytest-bpf-{namespace}-{pid}-1-0",
        f"pytest-bpf-{int(namespace) + 1}-{pid}-{int(start) + 1}-{number}",
    ):
        assert not names.is_stale(name), name


def test_a_process_that_was_killed_but_not_waited_for_is_dead() -> None:
    script = (
        "from pytest_bpf.kernel.sys.names import unique_name; print(unique_name(), flush=True); "
    )
    command = [sys.executable, "-c", script + "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        name = process.stdout.readline().decode().strip()
        assert not names.is_stale(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert names.is_stale(name)
    assert names.is_stale(name)


LEAVE = """
import subprocess
from pytest_bpf.cgroup import Cgroup
from pytest_bpf.kernel.sys.bpffs import PinDirectory
cgroup, pins = Cgroup(), PinDirectory()
left = cgroup.child("below").run(subprocess.Popen, ["sleep", "1000"], stdout=subprocess.DEVNULL)
(pins.path / "folder").mkdir()
print(cgroup.path, pins.path.parent, left.pid, flush=True)
input()
"""


@needs_root
def test_what_a_killed_run_left_is_removed_and_nothing_else() -> None:
    with (
        Cgroup() as own,
        PinDirectory() as own_pins,
        subprocess.Popen(
            [sys.executable, "-c", LEAVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        cgroup, pins, child = process.stdout.readline().split()
        foreign = cgroupfs.current() / "pytest-bpf-of-somebody-else"
        foreign.mkdir()
        try:
            living = sweep()
            assert not {cgroup, pins, str(own.path), str(own_pins.path.parent)} & set(living)
            assert Path(cgroup, "below").is_dir()
            process.kill()
            process.wait(60)
            patience = time.monotonic() + 60
            # A session beside this one may sweep, too, and be the one that removes them.
            while Path(cgroup).exists() or Path(pins).exists():
                assert sweep() or time.monotonic() < patience
            assert not any(mount.path == Path(pins) for mount in mounts("bpf"))
            assert not Path(f"/proc/{child}/cwd").exists()
            assert own.path.is_dir()
            assert own_pins.path.is_dir()
            assert foreign.is_dir()
        finally:
            foreign.rmdir()
        assert not {cgroup, pins} & set(sweep())


@needs_root
def test_directories_of_pins_are_swept_from_a_mounted_bpffs() -> None:
    script = f"""
set -e
mount -t bpf bpf {bpffs.USUAL}
"$0" -c "$1" >/dev/null || true
exec "$0" -c "$2"
"""
    leave = LEAVE.replace("input()", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    look = """
import os
from pathlib import Path
from pytest_bpf.kernel.sys import bpffs
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.netns.places import sweep
from pytest_bpf.kernel.sys.names import is_stale
before = set(os.listdir(bpffs.USUAL))
stale = [name for name in before if is_stale(name)]
with PinDirectory() as own:
    removed = sweep()
    print(own.path.parent.parent, len(stale), str(bpffs.USUAL / stale[0]) in removed)
    print(set(os.listdir(bpffs.USUAL)) == before - set(stale) | {own.path.parent.name})
"""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, leave, look],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{bpffs.USUAL} 1 True", "True"]


def test_mount_points_with_blanks_are_understood() -> None:
    table = (
        "41 31 0:38 / /a\\040b rw,relatime shared:7 - cgroup2 none rw,nsdelegate\n"
        "42 31 0:38 /x /c ro - cgroup2 none rw\n"
        "43 31 0:39 / /d rw master:1 shared:2 - bpf bpf rw,mode=700\n"
    )
    found = [(str(m.path), m.root, m.writable) for m in mounts("cgroup2", table)]
    assert found == [("/a b", "/", True), ("/c", "/x", False)]

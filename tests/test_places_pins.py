from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.kernel.sys.libbpf import call
from pytest_bpf.kernel.sys.mountinfo import mounts
from pytest_bpf.kernel.sys.names import is_stale
from tests.nobody import AS_NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

BPF_MAP_TYPE_ARRAY = 2


def pin_a_map(path: Path) -> None:
    descriptor = call("bpf_map_create", BPF_MAP_TYPE_ARRAY, b"pinned", 4, 8, 1, None)
    try:
        call("bpf_obj_pin", descriptor, os.fsencode(path))
    finally:
        os.close(descriptor)


def test_pins_live_in_it_and_go_with_it() -> None:
    before = mounts("bpf")
    with PinDirectory() as pins:
        (pins.path / "deeper" / "still").mkdir(parents=True)
        for path in (pins.path / "map", pins.path / "deeper" / "still" / "map"):
            pin_a_map(path)
            again = call("bpf_obj_get", os.fsencode(path))
            os.close(again)
        (pins.path / "link").symlink_to(pins.path / "deeper")
        assert stat.S_IMODE(pins.path.stat().st_mode) & 0o777 == 0o700
    assert not pins.path.exists()
    assert mounts("bpf") == before
    pins.close()


def test_each_has_its_own() -> None:
    with PinDirectory() as one, PinDirectory() as other:
        pin_a_map(one.path / "same")
        pin_a_map(other.path / "same")


def test_it_is_removed_while_somebody_looks_at_it() -> None:
    with PinDirectory() as pins:
        pin_a_map(pins.path / "map")
        descriptor = os.open(pins.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pins.close()
        finally:
            os.close(descriptor)
    assert not pins.path.exists()


def test_the_usual_bpffs_is_used_where_it_is_mounted() -> None:
    script = 'mount -t bpf bpf /sys/fs/bpf && exec "$0" -c "$1"'
    python = """
import os
from pathlib import Path
from pytest_bpf.kernel.sys.bpffs import PinDirectory
pins = PinDirectory()
(pins.path / "folder").mkdir()
print(pins.path.parent.parent, os.listdir(pins.path))
pins.close()
print(pins.path.parent.name in os.listdir("/sys/fs/bpf"))
"""
    command = ["unshare", "-m", "sh", "-c", script, sys.executable, python]
    said = subprocess.check_output(command, text=True).splitlines()
    assert said == ["/sys/fs/bpf ['folder']", "False"]


def test_without_privilege_the_sentence_says_what_is_missing() -> None:
    command = [*AS_NOBODY, sys.executable]
    script = "from pytest_bpf.kernel.sys.bpffs import PinDirectory; PinDirectory()"
    done = subprocess.run(
        [*command, "-B", "-c", script], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pytest_bpf.errors.PrivilegeError: mounting a bpf file system (")
    assert "uid 65534" in last
    assert not [path for path in Path("/tmp").iterdir() if is_stale(path.name)]

"""A whole test with ``ip``, ``bpftool`` and ``ping``: the best reasonable use of these commands.

As few processes as they allow: ``ip -batch``, ``ping -A``, which sends when the reply has come, and
``nsenter``, as fast as ``ip netns exec``, which mounts another /sys and so hides the pins.
Pins and names live in a mount namespace of this process: nothing of the host is changed.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pairs import Laps
from pytest_bpf.kernel.sys import libc

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = {
    "bpftool": "bpftool",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
}
"""The commands, and Debian's packages of them."""

PINS = Path("/sys/fs/bpf/passed")
MAKE = """\
netns add left
netns add right
link add veth0 netns left type veth peer name veth0 netns right
"""
ADDRESS = """\
link set lo up
addr add 192.0.2.{i}/24 dev veth0
addr add 2001:db8::{i}/64 dev veth0 nodad
link set veth0 up
"""
REMOVE = """\
netns del left
netns del right
"""
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


def missing() -> list[str]:
    """Return which commands are not there, and the package of each."""
    return [
        f"{command} (apt-get install {package})"
        for command, package in PACKAGES.items()
        if not shutil.which(command)
    ]


def private_mounts() -> None:
    """Give this process mounts of its own: an empty /run and an empty bpf file system."""
    libc.unshare(CLONE_NEWNS)
    mount = ctypes.CDLL(None, use_errno=True).mount
    for source, target, kind, flags in (
        (None, b"/", None, MS_REC | MS_PRIVATE),
        (b"tmpfs", b"/run", b"tmpfs", 0),
        (b"bpf", b"/sys/fs/bpf", b"bpf", 0),
    ):
        if mount(source, target, kind, ctypes.c_ulong(flags), None):
            raise OSError(ctypes.get_errno(), f"cannot mount {target.decode()}")


def whole_test(compiled: Path, packets: int, ping: Sequence[str]) -> Laps:
    """Make the pair, load, attach, ping, read, and remove it all; at least ``packets`` count."""
    laps = Laps()
    with laps.time("pair"):
        _run("ip", "-batch", "-", said=MAKE)
        for i, name in enumerate(("left", "right"), start=1):
            _run("ip", "-n", name, "-batch", "-", said=ADDRESS.format(i=i))
    with laps.time("load"):
        _run("bpftool", "prog", "loadall", str(compiled), str(PINS), "pinmaps", str(PINS))
    with laps.time("attach"):
        pinned = ("pinned", str(PINS / "count"))
        _run(*_within("right"), "bpftool", "net", "attach", "xdp", *pinned, "dev", "veth0")
    with laps.time("traffic"):
        _run(*_within("left"), "ping", "-n", "-q", "-c", str(packets), *ping, "192.0.2.2")
    with laps.time("read"):
        dumped = json.loads(_run("bpftool", "map", "dump", "-j", "pinned", str(PINS / "passed")))
        counted = sum(cpu["value"] for cpu in dumped[0]["formatted"]["values"])
    with laps.time("detach"):
        _run(*_within("right"), "bpftool", "net", "detach", "xdp", "dev", "veth0")
    with laps.time("unload"):
        for name in ("count", "passed"):
            (PINS / name).unlink()
        PINS.rmdir()
    with laps.time("close"):
        _run("ip", "-batch", "-", said=REMOVE)
    if counted < packets:  # more when ARP or IPv6 had something to say
        raise AssertionError(f"the commands counted {counted} packets of {packets}")
    return laps


def _within(namespace: str) -> tuple[str, ...]:
    return "nsenter", f"--net=/run/netns/{namespace}"


def _run(*command: str, said: str = "") -> str:
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout

"""The guest's file systems: its own at first, this machine's below them once a command is there."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.vm.guest import system

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OWN = (
    ("proc", "/proc", "proc"),
    ("sys", "/sys", "sysfs"),
    ("dev", "/dev", "devtmpfs"),
    ("devpts", "/dev/pts", "devpts"),
    ("shm", "/dev/shm", "tmpfs"),  # noqa: S108 (of the guest)
    ("run", "/run", "tmpfs"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2"),
    ("bpf", "/sys/fs/bpf", "bpf"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
)
"""Source, place and kind of what is mounted before the state is saved."""

SIGNS = {
    "virtio_pci (CONFIG_VIRTIO_PCI)": "/sys/bus/pci/drivers/virtio-pci",
    "virtio_console (CONFIG_VIRTIO_CONSOLE)": "/sys/bus/virtio/drivers/virtio_console",
    "9pnet_virtio (CONFIG_NET_9P_VIRTIO)": "/sys/bus/virtio/drivers/9pnet_virtio",
}
FILE_SYSTEMS = {"9p (CONFIG_9P_FS)": "9p", "overlay (CONFIG_OVERLAY_FS)": "overlay"}
"""What a machine cannot do without, and by which file, and which file system, it shows."""

LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

MODULES = ("/lib-dynload/", "-packages/")
"""Parts of the paths of Python's modules: tens of libraries, which no test probes."""

MOVED = ("/proc", "/sys", "/dev", "/run")
STAGE = "/.machine"
NINE_P = "trans=virtio,version=9p2000.L,msize=262144,noxattr"
"""qemu has no extended attributes here; Linux since 6.4 need not ask for them, others ignore it."""


def mount_own() -> None:
    """Mount what needs nothing of the host; what this kernel lacks is left out."""
    for source, place, kind in OWN:
        with suppress(OSError):
            system.mount(source, place, kind)
    for name, target in LINKS.items():
        os.symlink(f"/proc/self/{target}", f"/dev/{name}")  # noqa: PTH211


def lacking() -> list[str]:
    """Return what this kernel lacks of `SIGNS` and `FILE_SYSTEMS`, now that modules are loaded."""
    with open("/proc/filesystems") as file:  # noqa: PTH123
        known = file.read().split()
    return [
        *(what for what, sign in SIGNS.items() if not os.path.exists(sign)),  # noqa: PTH110
        *(what for what, name in FILE_SYSTEMS.items() if name not in known),
    ]


def enter(
    writable: Mapping[str, str],
    folders: Mapping[str, str],
    links: Mapping[str, str],
    own: Sequence[str],
) -> int:
    """Make the host's files the root, read-only below a private layer, and go there.

    ``writable`` are 9p tags and the folders they become; ``folders`` and ``links`` are what is
    elsewhere on the host, and where; ``own`` are the `libraries` of the process that becomes the
    command. Returns a descriptor of the new root, for other processes to follow.
    """
    host, upper, merged = (f"{STAGE}/{name}" for name in ("host", "upper", "merged"))
    system.mount("root", host, "9p", system.MS_RDONLY, f"{NINE_P},cache=loose")
    system.mount("upper", upper, "tmpfs")
    for name in ("files", "work"):
        os.mkdir(f"{upper}/{name}")  # noqa: PTH102
    for place in folders:  # in the layer itself: each look at the host takes long
        os.makedirs(f"{upper}/files{place}")  # noqa: PTH103
    for place, target in links.items():
        os.makedirs(os.path.dirname(f"{upper}/files{place}"), exist_ok=True)  # noqa: PTH103, PTH120
        os.symlink(target, f"{upper}/files{place}")  # noqa: PTH211
    layers = f"lowerdir={host},upperdir={upper}/files,workdir={upper}/work"
    system.mount("overlay", merged, "overlay", 0, layers)
    for tag, folder in writable.items():
        system.mount(tag, merged + folder, "9p", 0, f"{NINE_P},cache=mmap")
    for place, folder in folders.items():
        system.mount(host + folder, merged + place, "", system.MS_BIND)
    for library in own:
        system.mount(library, merged + library, "", system.MS_BIND)
    for place in MOVED:
        system.mount(place, merged + place, "", system.MS_MOVE)
    os.chdir(merged)
    system.mount(merged, "/", "", system.MS_MOVE)
    os.chroot(".")
    return os.open("/", os.O_PATH | os.O_DIRECTORY)


def libraries(pid: int) -> list[str]:
    """Return the program and the libraries of a process, without Python's modules.

    The process has them from the guest's own memory. A uprobe goes into a file, not into a name:
    in the host's file of that name it would miss the process.
    """
    with open(f"/proc/{pid}/maps") as file:  # noqa: PTH123
        mapped = [line.rstrip("\n").split(maxsplit=5) for line in file]
    files = [fields[5] for fields in mapped if "x" in fields[1] and fields[-1].startswith("/")]
    return [name for name in dict.fromkeys(files) if not any(part in name for part in MODULES)]

"""The bpf file system, where pins live: the one that is mounted, or a private one."""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import PlaceError, PrivilegeError, UnavailableError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys import capabilities, libc
from pytest_bpf.kernel.sys.mountinfo import mounts
from pytest_bpf.kernel.sys.names import claim, release, unique_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

USUAL = Path("/sys/fs/bpf")

MOUNT_FLAGS = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC


def make_directory(name: str) -> Path:
    """Make a directory for pins: on the bpffs at /sys/fs/bpf, else with a bpffs of its own.

    Raises `UnavailableError` when neither can be had.
    """
    if any(mount.path == USUAL and mount.writable for mount in mounts("bpf")):
        with suppress(PermissionError):
            path = claim(USUAL / name, remove)
            path.mkdir(mode=0o700)
            return path
    path = claim(_folder_for_mounts() / name, remove)
    path.mkdir(mode=0o700)
    try:
        libc.mount("bpf", path, MOUNT_FLAGS, "mode=0700")
    except OSError as error:
        path.rmdir()
        action = f"mounting a bpf file system (there is no writable one at {USUAL})"
        remedy = f"run as root, or mount -t bpf bpf {USUAL}"
        if error.errno == errno.EPERM and not capabilities.has("CAP_SYS_ADMIN"):
            raise PrivilegeError(action, "CAP_SYS_ADMIN", remedy=remedy) from error
        raise UnavailableError(f"{action} failed: {error.strerror}; {remedy}") from error
    return path


def remove(directory: Path) -> None:
    """Remove a directory of pins with all that is in it, its mount too; raise `OSError`."""
    if any(mount.path == directory for mount in mounts("bpf")):
        libc.unmount(directory)
        directory.rmdir()
        return
    for path, folders, files in os.walk(directory, topdown=False):
        for name in files:
            Path(path, name).unlink()
        for name in folders:
            place = Path(path, name)
            if place.is_symlink():  # iproute2 makes some
                place.unlink()
            else:
                place.rmdir()
    directory.rmdir()


def leftovers(stale: Callable[[str], bool]) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """Find directories of pins and private mounts with stale names, each with what removes it."""
    mounted = [mount.path for mount in mounts("bpf") if mount.writable]
    for path in mounted:
        if stale(path.name):
            yield path, remove
        else:
            with suppress(OSError):
                yield from ((pins, remove) for pins in list(path.iterdir()) if stale(pins.name))
    for path in list(_folder_for_mounts().iterdir()):
        if stale(path.name) and path not in mounted and path.lstat().st_uid == os.geteuid():
            yield path, Path.rmdir


def _folder_for_mounts() -> Path:
    """Return /run where it can be written, else the folder for temporary files."""
    run = Path("/run")
    return run if os.access(run, os.W_OK) else Path(tempfile.gettempdir())


@checked_methods
class PinDirectory:
    """A directory on a bpf file system that only its owner can enter: ``path``.

    It is below /sys/fs/bpf where bpffs is mounted there, else a bpffs of its own, mounted on a
    private directory in /run until `close`. What a killed run left is removed by
    `pytest_bpf.netns.places.sweep`. Raises `UnavailableError` where there can be none.
    """

    def __init__(self) -> None:
        root = make_directory(unique_name())
        self._end = weakref.finalize(self, _close, root, os.getpid())
        self.path: Path = root / "pins"  # below the root, where a bpffs has files of the kernel's
        self.path.mkdir(mode=0o700)

    def __repr__(self) -> str:
        return f"<PinDirectory {self.path}{'' if self._end.alive else ', closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directory with every pin in it. Repeatable."""
        self._end()


def _close(path: Path, maker: int) -> None:
    if os.getpid() != maker:
        return
    try:
        remove(path)
        release(path)
    except OSError as error:
        raise PlaceError(f"the pins in {path} cannot be removed: {error.strerror}") from error

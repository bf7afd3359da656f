"""The bpf file system, where pins live: the one that is mounted, or a private one."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.places import libc
from pytest_bpf.places.mounts import mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USUAL = Path("/sys/fs/bpf")


def make_directory(name: str) -> Path:
    """Make a directory for pins: on the bpffs at /sys/fs/bpf, else with a bpffs of its own.

    Raises `UnavailableError` when neither can be had.
    """
    if any(mount.path == USUAL and mount.writable for mount in mounts("bpf")):
        with suppress(PermissionError):
            path = USUAL / name
            path.mkdir(mode=0o700)
            return path
    path = _folder_for_mounts() / name
    path.mkdir(mode=0o700)
    try:
        libc.mount_bpffs(path)
    except OSError as error:
        path.rmdir()
        raise UnavailableError(
            f"there is no writable bpf file system at {USUAL}, and this process "
            f"(uid {os.geteuid()}) cannot mount one: {error.strerror}; run as root, or "
            f"mount -t bpf bpf {USUAL}"
        ) from error
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
            Path(path, name).rmdir()
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

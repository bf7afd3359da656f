"""Unpacked kernels in the cache: each made once, whole or not at all, and removed when unused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.cache import forget_old, mark_used, open_cache
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernels.kernel import cache_folder, kernels_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_bpf.kernels.kernel import Kernel

ORIGIN = "origin"
"""The file of an unpacked kernel that says where it came from."""

UNUSED = 60 * 24 * 3600
"""Seconds after which a kernel that no run has used goes, when another one is unpacked."""

UNPACKED_MB = 500
"""Megabytes that a distribution's kernel takes with its download, for a while."""


def obtain(name: str, origin: str, unpack: Callable[[Path], None]) -> Kernel:
    """Return the kernel of the folder ``name``, unpacked now when it is not in the cache.

    ``unpack`` gets an empty folder and leaves there ``root``, a root file system with the kernel;
    ``origin`` is what the user calls it. Of several processes that want it one unpacks it. Raises
    `BpfError` when there is no kernel in ``root``, and when the disk is full.
    """
    root = cache_folder() / name
    with open_cache().lock(f"kernel-{name}"):
        if not open_cache().trusts(root):
            _make(root, origin, unpack)
            forget_old(cache_folder(), UNUSED, _remove_unused)
    kernel = next(kernels_in(root), None)
    if kernel is None:
        raise BpfError(f"{origin} holds no kernel image; remove {root} and try again")
    return kernel


def note_use(kernel: Kernel) -> None:
    """Remember that a kernel is in use, however it was asked for, if it is one of the cache."""
    kernels = cache_folder()
    if kernel.image.is_relative_to(kernels):
        mark_used(kernels / kernel.image.relative_to(kernels).parts[0])


def origin_of(root: Path) -> str:
    """Return where an unpacked kernel came from; empty when nobody noted it."""
    with suppress(OSError):
        return (root / ORIGIN).read_text().strip()
    return ""


def remove(root: Path) -> None:
    """Remove an unpacked kernel; raise `BpfError` when it cannot be removed."""
    try:
        with open_cache().lock(f"kernel-{root.name}"):
            shutil.rmtree(root)
    except OSError as error:
        raise BpfError(f"cannot remove {root}: {error.strerror}") from None


def run(command: list[str], folder: Path, advice: str) -> None:
    """Run a package tool in ``folder``; raise `UnavailableError` with its complaint."""
    if not shutil.which(command[0]):
        raise UnavailableError(f"kernels in Debian's packages need the command {command[0]}")
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, umask=0o022
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = (errors or done.stderr.strip().splitlines() or ["no message"])[0]
        raise UnavailableError(f"{' '.join(command)} failed: {reason}; {advice}")


def require_room(folder: Path, what: str, megabytes: int = UNPACKED_MB) -> None:
    """Raise `BpfError` when the disk of ``folder`` has less room than ``what`` needs."""
    free = shutil.disk_usage(folder).free >> 20
    if free < megabytes:
        raise BpfError(
            f"{what} needs {megabytes} MB, {open_cache().folder} has {free} MB left; make room "
            "there, or set PYTEST_BPF_CACHE to another folder"
        )


def _make(root: Path, origin: str, unpack: Callable[[Path], None]) -> None:
    with open_cache().workspace() as work:
        unpack(work)
        fresh = work / "root"
        fresh.chmod(0o700)
        if next(kernels_in(fresh), None) is None:
            raise BpfError(
                f"{origin} holds no kernel: neither boot/vmlinuz* nor lib/modules/RELEASE/vmlinuz"
            )
        (fresh / ORIGIN).write_text(f"{origin}\n")
        fresh.replace(open_cache().path("kernels", root.name))


def _remove_unused(root: Path) -> None:
    """Remove a kernel that no run has used for `UNUSED` seconds, and say so."""
    if root.is_dir():
        print(f"pytest-bpf: removing the unused kernel {root.name}", file=sys.stderr)  # noqa: T201
        remove(root)

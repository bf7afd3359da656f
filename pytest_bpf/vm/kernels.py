"""Which kernel: from what the user writes to an image and its modules."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, near_matches
from pytest_bpf.vm import debian, image, modules
from pytest_bpf.vm.kernel import Kernel, cache_folder, in_root, version_key, with_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "host"
DEBIAN = "debian"
BUILT = {"x86_64": "arch/x86/boot/bzImage", "aarch64": "arch/arm64/boot/Image"}
"""Where a kernel's build leaves its image."""


def find(choice: str) -> Kernel | None:
    """Return the kernel that ``choice`` names; None for ``host``, which needs no machine.

    Tried in this order: ``host``; ``debian``, the distribution's current stock kernel; a path to
    an image, to a kernel's build tree, or to a folder that has ``boot/vmlinuz`` and
    ``lib/modules`` (the layout of the ci-kernels images); the beginning of a version that is in
    ``/boot`` or in the cache. Raises `BpfError` that lists what there is, and for an image that
    cannot become a machine here.
    """
    if choice == HOST:
        return None
    if choice == DEBIAN:
        return checked(debian.current())
    if "/" in choice or Path(choice).exists():
        return checked(at(Path(choice).expanduser().absolute()))
    return checked(_by_version(choice))


def at(path: Path) -> Kernel:
    """Return the kernel at a path: an image, a build tree, or a root."""
    if path.is_file():
        return with_modules(path, _modules_near(path))
    built = path / BUILT.get(platform.machine(), "arch/*/boot/Image")
    if built.exists():
        return with_modules(built, path)
    if kernels := list(in_root(path)):
        return kernels[0]
    if not path.exists():
        raise BpfError(f"there is no kernel image {path}: no such file or folder")
    raise BpfError(
        f"no kernel in the folder {path}: neither a built one ({BUILT[platform.machine()]}) "
        "nor boot/vmlinuz* with lib/modules"
    )


def checked(kernel: Kernel) -> Kernel:
    """Return ``kernel`` if a machine can be made of it here; else raise `BpfError`."""
    if kernel.architecture != platform.machine():
        raise BpfError(
            f"the kernel {kernel.image} is for {kernel.architecture}, this machine is "
            f"{platform.machine()}; the programs of this machine could not run on it"
        )
    return kernel


def require_modules(kernel: Kernel) -> None:
    """Raise `BpfError` when ``kernel`` lacks what a machine is made of."""
    if kernel.modules and (missing := modules.missing(kernel.modules)):
        raise lacking(kernel, ", ".join(missing))


def lacking(kernel: Kernel, names: str) -> BpfError:
    """Return the error that says what ``kernel`` lacks."""
    below = f"below {kernel.modules}" if kernel.modules else "a module, as it came without any"
    return BpfError(
        f"the kernel {kernel.release} ({kernel.image}) lacks {names}: neither built in nor {below};"
        " a machine needs virtio, 9p and overlayfs"
    )


def _by_version(choice: str) -> Kernel:
    roots = [Path("/"), *sorted(cache_folder().glob("*/"), key=version_key, reverse=True)]
    known = {kernel.release: kernel for root in roots for kernel in _readable(root)}
    matching = [release for release in known if re.match(rf"{re.escape(choice)}(?!\d)", release)]
    if matching:
        return known[max(matching, key=version_key)]
    raise BpfError(
        f"no kernel {choice!r} in /boot or {cache_folder()}{near_matches(choice, known)}; "
        "'debian' downloads the distribution's, and a path to an image works too"
    )


def _readable(root: Path) -> Iterator[Kernel]:
    if os.access(root / "boot", os.R_OK):
        for path in (root / "boot").glob("vmlinuz*"):
            if not path.is_symlink() and os.access(path, os.R_OK):
                yield from (kernel for kernel in [at(path)] if kernel.release)


def _modules_near(path: Path) -> Path | None:
    """Find the modules of ``ROOT/boot/IMAGE``, or of a build tree's image."""
    release = image.identify(path).release
    for root in (path.parent.parent, Path("/")):
        folder = root / "lib/modules" / release
        if release and folder.is_dir():
            return folder
    tree = path.parent.parent.parent.parent
    return tree if (tree / "modules.order").exists() else None

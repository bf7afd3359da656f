"""Which kernel: from what the user writes to an image and its modules."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from pytest_bpf.cache import open_cache
from pytest_bpf.errors import BpfError, near_matches
from pytest_bpf.kernels import deb, debian, image, modules, store
from pytest_bpf.kernels.kernel import (
    OCI,
    Kernel,
    cache_folder,
    from_image,
    is_ours,
    kernels_in,
    kernels_to_choose,
    modules_in,
    version_key,
)

HOST = "host"
DEBIAN = "debian"
SHOWN = 100
"""Characters of a name that an error shows."""

BUILT = {"x86_64": "arch/x86/boot/bzImage", "aarch64": "arch/arm64/boot/Image"}
"""Where a kernel's build leaves its image."""

OF_TREES = (".config", "modules.order")
"""Files that lie in a kernel's build tree, and in no root file system."""


def find(choice: str) -> Kernel | None:
    """Return the kernel that ``choice`` names; None for ``host``, which needs no machine.

    Tried in this order: ``host``; ``debian``, the distribution's current stock kernel;
    ``debian:VERSION``, as `packages.choose` reads it; ``oci:REGISTRY/IMAGE:TAG``; ``.deb`` files,
    by path or address; a path to an image, to a kernel's build tree, or to a folder that has
    ``boot/vmlinuz`` and ``lib/modules``; the beginning of a version that is in ``/boot`` or in the
    cache. One of the cache counts as used. Raises `BpfError` that lists what there is, and for an
    image that cannot become a machine here.
    """
    if choice == HOST:
        return None
    kernel = require_bootable(_find(choice))
    store.note_use(kernel)
    return kernel


def _find(choice: str) -> Kernel:
    if choice == DEBIAN:
        return debian.current()
    if choice.startswith(f"{DEBIAN}:"):
        from pytest_bpf.kernels import packages  # noqa: PLC0415 (as the next: few need it)

        package = packages.choose(choice.removeprefix(f"{DEBIAN}:"), debian.package_names())
        return debian.unpacked(package.name)
    if choice.startswith(OCI):
        from pytest_bpf.kernels import oci  # noqa: PLC0415

        return oci.find(choice)
    if deb.is_meant(choice):
        return deb.find(choice)
    if not choice:
        raise BpfError("a kernel has a name, and this one is empty; 'debian' is one")
    try:
        if "/" in choice or Path(choice).exists():
            return from_path(Path(choice).expanduser().absolute())
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a home of no user
        reason = getattr(error, "strerror", None) or error
        raise BpfError(f"no kernel {_shorten(choice)!r}: {reason}") from None
    return _by_version(choice)


def from_path(path: Path) -> Kernel:
    """Return the kernel at a path: an image, a build tree, or a root."""
    if path.is_file():
        if not is_ours(path):
            raise BpfError(f"{path} is not used: it may be somebody else's; remove it")
        return from_image(path, _modules_near(path))
    built = path / BUILT.get(platform.machine(), "arch/*/boot/Image")
    if built.exists():
        return from_image(built, path)
    if kernels := list(kernels_in(path)):
        return kernels[0]
    if not path.exists():
        raise BpfError(f"there is no kernel image {path}: no such file or folder")
    raise BpfError(
        f"no kernel in the folder {path}: neither a built one ({BUILT[platform.machine()]}) "
        "nor boot/vmlinuz* with lib/modules"
    )


def _shorten(name: str) -> str:
    return name if len(name) <= SHOWN else f"{name[:SHOWN]}..."


def require_bootable(kernel: Kernel) -> Kernel:
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
    cache = open_cache()
    cached = [root for root in cache_folder().glob("*/") if cache.trusts(root)]
    roots = [Path("/"), *sorted(cached, key=version_key, reverse=True)]
    known = {kernel.release: kernel for root in roots for kernel in kernels_to_choose(root)}
    matching = [release for release in known if re.match(rf"{re.escape(choice)}(?!\d)", release)]
    if matching:
        return known[max(matching, key=version_key)]
    raise BpfError(
        f"no kernel {choice!r} in /boot or {cache_folder()}{near_matches(choice, known)}; "
        "'debian' downloads the distribution's, and a path to an image works too"
    )


def _modules_near(path: Path) -> Path | None:
    """Find the modules of ``ROOT/boot/IMAGE``, or of a build tree's image.

    Those of a tree go before what is installed, which may be of an older build of this release.
    """
    release = image.identify(path).release
    if release and path.parent.name == release:
        return path.parent
    tree = path.parent.parent.parent.parent
    if any((tree / name).is_file() for name in OF_TREES):  # a home has a folder of that name
        return tree
    roots = (path.parent.parent, Path("/"))
    return next((folder for root in roots if (folder := modules_in(root, release))), None)

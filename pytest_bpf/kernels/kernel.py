"""A kernel to boot, and where kernels lie: in a root file system, in the cache."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import image

if TYPE_CHECKING:
    from collections.abc import Iterator


OCI = "oci:"
"""What the name of an image of a registry begins with."""

IMAGES = ("boot/vmlinuz*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz")
"""Where the images of a root file system lie."""


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot: ``modules`` is its ``/lib/modules/RELEASE``, None when it has none."""

    release: str
    image: Path
    modules: Path | None
    architecture: str

    @property
    def config(self) -> Path | None:
        """The file with the kernel's configuration: beside its image, or in its build tree."""
        places = [self.image.with_name(f"config-{self.release}")]
        if self.modules:
            places += [self.modules / "config", self.modules / "build/.config"]
            places.append(self.modules / ".config")
        return next((place for place in places if place.exists()), None)

    def __str__(self) -> str:
        return self.release


def cache_folder() -> Path:
    """Return the folder of unpacked kernels, one a release, each in the layout of a root."""
    return open_cache().folder / "kernels"


def kernels_in(root: Path) -> Iterator[Kernel]:
    """Find the kernels of a root file system, the newest first.

    An image lies in ``boot``, or with its modules, as in images of systems that boot from one.
    """
    for path in _images(root):
        kernel = from_image(path, None)
        yield replace(kernel, modules=modules_in(root, kernel.release))


def kernels_to_choose(root: Path) -> Iterator[Kernel]:
    """Find those of `kernels_in` that this user can read and that say their release."""
    for path in _images(root):
        if os.access(path, os.R_OK):
            with suppress(BpfError):  # another file of that name
                kernel = from_image(path, None)
                if kernel.release:
                    yield replace(kernel, modules=modules_in(root, kernel.release))


def _images(root: Path) -> list[Path]:
    """Return the files of a root file system that may be kernels to boot, the newest first."""
    images = [path for pattern in IMAGES for path in root.glob(pattern)]
    ours = [path for path in images if not path.is_symlink() and is_ours(path)]
    return sorted(ours, key=_release, reverse=True)


def modules_in(root: Path, release: str) -> Path | None:
    """Return the folder of a kernel's modules in a root file system, None when it has none."""
    folders = [root / "lib/modules" / release, root / "usr/lib/modules" / release]
    return next((folder for folder in folders if release and folder.is_dir()), None)


def _release(path: Path) -> list[int]:
    return version_key(path if path.parent.name == "boot" else path.parent)


def is_ours(path: Path) -> bool:
    """Say whether a file may be booted: one of the cache must be trusted, with its folders."""
    cache = open_cache()
    return not path.is_relative_to(cache.folder) or cache.trusts(path)


def from_image(path: Path, folder: Path | None) -> Kernel:
    """Return the kernel of an image, with the folder of its modules."""
    said = image.identify(path)
    release = said.release or path.name.partition("-")[2]
    return Kernel(release, path, folder, said.architecture)


def version_key(version: str | Path) -> list[int]:
    """Return what to sort versions by: their numbers."""
    return [int(number) for number in re.findall(r"\d+", Path(version).name)]

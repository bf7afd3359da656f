"""A kernel to boot, and where kernels lie: in a root file system, in the cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.vm import image

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def in_root(root: Path) -> Iterator[Kernel]:
    """Find the kernels of a root file system, the newest first."""
    images = sorted((root / "boot").glob("vmlinuz*"), key=version_key, reverse=True)
    for path in images:
        if not path.is_symlink():
            release = image.identify(path).release or path.name.partition("-")[2]
            folder = root / "lib/modules" / release
            yield with_modules(path, folder if folder.is_dir() else None)


def with_modules(path: Path, folder: Path | None) -> Kernel:
    """Return the kernel of an image, with the folder of its modules."""
    said = image.identify(path)
    release = said.release or path.name.partition("-")[2]
    return Kernel(release, path, folder, said.architecture)


def version_key(version: str | Path) -> list[int]:
    """Return what to sort versions by: their numbers."""
    return [int(number) for number in re.findall(r"\d+", Path(version).name)]

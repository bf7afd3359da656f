"""The distribution's current stock kernel, by its own package tools; nothing is installed."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.vm.kernel import cache_folder, in_root

if TYPE_CHECKING:
    from pytest_bpf.vm.kernel import Kernel

PACKAGES = {
    "x86_64": ("linux-image-amd64", "linux-image-generic"),
    "aarch64": ("linux-image-arm64", "linux-image-generic"),
}
"""The packages that depend on the current kernel's: Debian's name, then Ubuntu's."""

LISTS = Path("/var/lib/apt/lists")

UNPACKED_MB = 400


def current() -> Kernel:
    """Return the current kernel, downloaded and unpacked into the cache when it is not there.

    Raises `UnavailableError` without apt or without its package lists.
    """
    package = _known() or _package()
    root = cache_folder() / package.removeprefix("linux-image-")
    with open_cache().lock("kernels"):
        if not root.exists():
            _unpack(package, root)
    if package != _known():
        open_cache().write(package.encode(), "kernels", "debian")
    found = next(in_root(root), None)
    if found is None:
        raise BpfError(f"the package {package} holds no kernel image; remove {root} and try again")
    return found


def headers() -> Path:
    """Return a folder with the current kernel's headers, downloaded when they are not there.

    The errors are those of `current`; the kernel itself need not be there.
    """
    package = _known() or _package()
    release = re.sub(r"^linux-image-(unsigned-)?", "", package)
    folder = _headers_folder(release)
    with open_cache().lock("kernels"):
        if not folder.exists():
            _unpack_headers(release, folder)
    return folder


def unpacked_headers(release: str) -> Path | None:
    """Return a folder with a kernel's headers, None when they were not downloaded."""
    folder = _headers_folder(release)
    return folder if folder.exists() else None


def _headers_folder(release: str) -> Path:
    return open_cache().folder / "headers" / release


def _unpack_headers(release: str, folder: Path) -> None:
    """Download a kernel's headers; those that all flavours have and its own go into one folder."""
    package = f"linux-headers-{release}"
    print(f"pytest-bpf: downloading and unpacking {package}, once", file=sys.stderr)  # noqa: T201
    with open_cache().workspace() as work:
        common = _dependencies(package, r"linux-headers-\S+")
        advice = "run 'apt-get update' and try again"
        _run(["apt-get", "download", "-qq", *common, package], work, advice)
        for number, archive in enumerate(sorted(work.glob("*.deb"))):
            _run(["dpkg-deb", "-x", archive.name, f"root{number}"], work, "is the disk full?")
        for found in work.glob("root*/usr/src/linux-headers-*/"):
            for part in ("arch", "include"):
                shutil.copytree(found / part, work / "merged" / part, dirs_exist_ok=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (work / "merged").replace(folder)


def _dependencies(package: str, pattern: str) -> list[str]:
    """Return the packages that one depends on, of those whose names match; none if apt is lost."""
    command = ["apt-cache", "depends", "--important", package]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return re.findall(rf"Depends: ({pattern})", shown)


def _known() -> str | None:
    """Return what apt said last, when its lists are the same since: asking takes half a second."""
    try:
        if _answer().stat().st_mtime > LISTS.stat().st_mtime:
            return _answer().read_text()
    except OSError:
        pass
    return None


def _answer() -> Path:
    return cache_folder() / "debian"


def _package() -> str:
    """Return the name of the package of the current kernel, ``linux-image-6.1.0-56-amd64``."""
    for tool in ("apt-cache", "apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise UnavailableError(f"the kernel 'debian' needs {tool}; give a path to an image")
    for name in PACKAGES.get(platform.machine(), ()):
        if found := _dependencies(name, r"linux-image-(?:unsigned-)?\d\S*"):
            return found[0]
    raise UnavailableError(
        f"apt knows no kernel for {platform.machine()}: its package lists are missing or old; "
        "run 'apt-get update'"
    )


def _unpack(package: str, root: Path) -> None:
    """Download and unpack; the folder ``root`` appears whole or not at all."""
    print(f"pytest-bpf: downloading and unpacking {package}, once", file=sys.stderr)  # noqa: T201
    cache = open_cache()
    with cache.workspace() as folder:
        free = shutil.disk_usage(folder).free >> 20
        if free < UNPACKED_MB + 100:
            raise BpfError(
                f"{package} needs {UNPACKED_MB + 100} MB, {cache.folder} has {free} MB left"
            )
        packages = [package, *_of_modules(package)]
        _run(
            ["apt-get", "download", "-qq", *packages], folder, "run 'apt-get update' and try again"
        )
        for archive in folder.glob("*.deb"):
            _run(["dpkg-deb", "-x", archive.name, "root"], folder, "is the disk full?")
        cache.path("kernels", "x")
        (folder / "root").replace(root)


def _of_modules(package: str) -> list[str]:
    """Return the packages of a kernel's modules, where they are not in its own, as Ubuntu's."""
    release = re.sub(r"^linux-image-(unsigned-)?", "", package)
    found = subprocess.run(
        ["apt-cache", "pkgnames", "linux-modules-"], capture_output=True, text=True, check=False
    )
    wanted = {f"linux-modules-{release}", f"linux-modules-extra-{release}"}
    return sorted(wanted & set(found.stdout.split()))


def _run(command: list[str], folder: Path, advice: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = (errors or done.stderr.strip().splitlines() or ["no message"])[0]
        raise UnavailableError(f"{' '.join(command)} failed: {reason}; {advice}")

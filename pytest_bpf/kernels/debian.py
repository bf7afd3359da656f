"""The distribution's current stock kernel, by its own package tools; nothing is installed."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import forget_old, mark_used, open_cache
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernels import deb, store
from pytest_bpf.kernels.kernel import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.kernels.download import Remote
    from pytest_bpf.kernels.kernel import Kernel

PACKAGES = {
    "x86_64": ("linux-image-amd64", "linux-image-generic"),
    "aarch64": ("linux-image-arm64", "linux-image-generic"),
}
"""The packages that depend on the current kernel's: Debian's name, then Ubuntu's."""

URI = re.compile(r"'(?P<url>https?://[^']+)' (?P<name>\S+) \d+ SHA256:(?P<sha256>[0-9a-f]{64})")
"""A line of ``apt-get download --print-uris``."""

LISTS = Path("/var/lib/apt/lists")


def current() -> Kernel:
    """Return the current kernel, downloaded and unpacked into the cache when it is not there.

    Raises `UnavailableError` without apt or without its package lists.
    """
    return unpacked(_current_package())


def unpacked(package: str) -> Kernel:
    """Return the kernel of a package, downloaded and unpacked when it is not in the cache."""
    return store.obtain(folder_of(package).name, package, partial(_unpack, package))


def folder_of(package: str) -> Path:
    """Return where a package is unpacked in the cache."""
    return cache_folder() / package.removeprefix("linux-image-")


def package_names() -> list[str]:
    """Return the names of the packages with kernels that apt knows; none without apt."""

    def ask() -> str:
        if not shutil.which("apt-cache"):
            return ""
        command = ["apt-cache", "pkgnames", "linux-image-"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    return _noted("packages", ask).split()


def headers() -> Path:
    """Return a folder with the current kernel's headers, downloaded when they are not there.

    The errors are those of `current`; the kernel itself need not be there.
    """
    package = _current_package()
    release = re.sub(r"^linux-image-(unsigned-)?", "", package)
    folder = _headers_folder(release)
    with open_cache().lock("kernels"):
        if not open_cache().trusts(folder):
            _unpack_headers(release)
            forget_old(folder.parent, store.UNUSED)
    mark_used(folder)
    return folder


def unpacked_headers(release: str) -> Path | None:
    """Return a folder with a kernel's headers, None when they were not downloaded."""
    folder = _headers_folder(release)
    return folder if open_cache().trusts(folder) else None


def _headers_folder(release: str) -> Path:
    return open_cache().folder / "headers" / release


def _unpack_headers(release: str) -> None:
    """Download a kernel's headers; those that all flavours have and its own go into one folder."""
    package = f"linux-headers-{release}"
    print(f"pytest-bpf: downloading and unpacking {package}, once", file=sys.stderr)  # noqa: T201
    with open_cache().workspace() as work:
        common = _dependencies(package, r"linux-headers-\S+")
        advice = "run 'apt-get update' and try again"
        store.run(["apt-get", "download", "-qq", *common, package], work, advice)
        for number, archive in enumerate(sorted(work.glob("*.deb"))):
            store.run(["dpkg-deb", "-x", archive.name, f"root{number}"], work, "is the disk full?")
        for found in work.glob("root*/usr/src/linux-headers-*/"):
            for part in ("arch", "include"):
                shutil.copytree(found / part, work / "merged" / part, dirs_exist_ok=True)
        (work / "merged").chmod(0o700)
        (work / "merged").replace(open_cache().path("headers", release))


def _dependencies(package: str, pattern: str) -> list[str]:
    """Return the packages that one depends on, of those whose names match; none if apt is lost."""
    command = ["apt-cache", "depends", "--important", package]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return re.findall(rf"Depends: ({pattern})", shown)


def _current_package() -> str:
    return _noted("debian", _package)


def _noted(name: str, ask: Callable[[], str]) -> str:
    """Return what apt said last, when its lists are the same since: asking takes half a second."""
    with suppress(OSError):
        is_current = (cache_folder() / name).stat().st_mtime > LISTS.stat().st_mtime
        if is_current and (text := (open_cache().read("kernels", name) or b"").decode()):
            return text
    if text := ask():
        open_cache().write(text.encode(), "kernels", name)
    return text


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


def _unpack(package: str, folder: Path) -> None:
    """Download a package and its modules, checked by what apt's lists say, and unpack them."""
    from pytest_bpf.kernels.download import downloaded  # noqa: PLC0415 (costly, seldom needed)

    store.require_room(folder, package)
    packages = [package, *_module_packages(package)]
    remotes = _remotes(packages)
    if remotes is None:  # apt has ways of its own there
        print(f"pytest-bpf: downloading and unpacking {package}, once", file=sys.stderr)  # noqa: T201
        advice = "run 'apt-get update' and try again"
        store.run(["apt-get", "download", "-qq", *packages], folder, advice)
        deb.unpack(sorted(folder.glob("*.deb")), folder)
        return
    with ExitStack() as stack:
        files = [stack.enter_context(downloaded(remote)) for remote in remotes]
        deb.unpack(files, folder)


def _remotes(packages: list[str]) -> list[Remote] | None:
    """Return where packages are, with their digests; None when only apt can get at them."""
    from pytest_bpf.kernels.download import Remote  # noqa: PLC0415 (costly, seldom needed)

    settings = ["apt-config", "dump", "Acquire::http::Proxy", "Acquire::https::Proxy"]
    shown = ["apt-get", "download", "--print-uris", "-qq", *packages]
    proxies, uris = (
        subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for command in (settings, shown)
    )
    lines = [URI.fullmatch(line.strip()) for line in uris.splitlines()]
    if "::Proxy" in proxies or len(lines) != len(packages):
        return None
    remotes = [Remote(line["url"], line["name"], line["sha256"]) for line in lines if line]
    return remotes if len(remotes) == len(packages) else None


def _module_packages(package: str) -> list[str]:
    """Return the packages of a kernel's modules, where they are not in its own, as Ubuntu's."""
    release = re.sub(r"^linux-image-(unsigned-)?", "", package)
    process = subprocess.run(
        ["apt-cache", "pkgnames", "linux-modules-"], capture_output=True, text=True, check=False
    )
    wanted = {f"linux-modules-{release}", f"linux-modules-extra-{release}"}
    return sorted(wanted & set(process.stdout.split()))

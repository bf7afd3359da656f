"""``pytest-bpf kernels``: which kernels tests can run on, and which are in the cache."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.errors import BpfError, near_matches
from pytest_bpf.kernel.sys.release import release
from pytest_bpf.kernels import debian, packages, store
from pytest_bpf.kernels.kernel import cache_folder, kernels_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf kernels", description="List the kernels for --bpf-kernel."
    )
    result.add_argument(
        "features",
        nargs="*",
        metavar="features KERNEL",
        help="show which kinds of maps, programs and attaching a kernel has",
    )
    result.add_argument("--all", action="store_true", help="every release, not only the newest")
    result.add_argument("--remove", metavar="RELEASE", help="remove one from the cache")
    return result


def main(arguments: Sequence[str]) -> int:
    """List the kernels, or what one has, or remove one from the cache; return the exit status."""
    options = parser().parse_args(arguments)
    if options.features:
        word, *choice = options.features
        if word != "features" or len(choice) != 1:
            parser().error(f"what is {' '.join(options.features)!r}? write: features KERNEL")
        from pytest_bpf.commands import kernel_features  # noqa: PLC0415 (libbpf and more)

        return kernel_features.show(choice[0])
    if options.remove:
        return _remove(options.remove)
    print(f"{'host':22} {release()}")
    seen = set()
    cached = set()
    for package in packages.parse(debian.package_names()):
        folder = debian.folder_of(package.name)
        is_cached = open_cache().trusts(folder)
        cached.add(folder.name)
        if str(package) in seen and not options.all and not is_cached:
            continue
        seen.add(str(package))
        state = f"in the cache, {_megabytes(folder)} MB" if is_cached else ""
        print(f"{package!s:22} {package.release:32} {state}".rstrip())
    for folder in sorted(cache_folder().glob("*/")):
        if folder.name not in cached and open_cache().trusts(folder):
            found = ", ".join(map(str, kernels_in(folder))) or "no kernel"
            origin = store.origin_of(folder)
            size = f"in the cache, {_megabytes(folder)} MB"
            if origin in ("", folder.name):
                print(f"{folder.name:55} {size}")
            else:
                print(f"{origin:22} {found:32} {size}, as {folder.name}")
    return 0


def _remove(name: str) -> int:
    folders = {folder.name: folder for folder in cache_folder().glob("*/")}
    if name not in folders:
        print(
            f"pytest-bpf kernels: {cache_folder()} has no {name!r}{near_matches(name, folders)}",
            file=sys.stderr,
        )
        return 1
    try:
        store.remove(folders[name])
    except BpfError as error:
        print(f"pytest-bpf kernels: {error}", file=sys.stderr)
        return 1
    print(f"removed {folders[name]}")
    return 0


def _megabytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*")) >> 20

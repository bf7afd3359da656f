"""Kernels in ``.deb`` files: on this disk, or by their address."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pytest_bpf.cache import digest
from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pytest_bpf.kernels.download import Remote
    from pytest_bpf.kernels.kernel import Kernel

SUFFIX = ".deb"

DIGEST = re.compile(r"sha256=([0-9a-f]{64})")
"""What may follow the ``#`` of an address."""


def is_meant(choice: str) -> bool:
    """Say whether ``choice`` names ``.deb`` files, or an address."""
    return choice.startswith(("http://", "https://")) or choice.endswith(SUFFIX)


def find(choice: str) -> Kernel:
    """Return the kernel of ``.deb`` files, unpacked when they are not in the cache.

    ``choice`` is a path or an address, or several with commas, as Ubuntu's modules are in packages
    of their own. An address may end with ``#sha256=HEX``. Raises `BpfError` when there is no such
    file, the digest differs, or there is no kernel inside, and `UnavailableError` when the server
    does not give it.
    """
    parts = choice.split(",")
    files = [_remote(part) if "://" in part else _local(part) for part in parts]
    name = re.sub(r"^linux-image-(unsigned-)?", "", Path(_name(parts[0])).stem)
    key = digest(*(_version(file) if isinstance(file, Path) else file.url for file in files))

    def fetch(folder: Path) -> None:
        store.require_room(folder, _name(parts[0]))
        with ExitStack() as stack:
            paths = [
                file if isinstance(file, Path) else stack.enter_context(_downloaded(file))
                for file in files
            ]
            unpack(paths, folder)

    return store.obtain(f"{name}-{key[:8]}", choice, fetch)


def unpack(files: Sequence[Path], folder: Path) -> None:
    """Unpack packages into ``folder/root``; raise `UnavailableError` for what is no package."""
    for file in files:
        store.run(["dpkg-deb", "-x", str(file), "root"], folder, "is it a whole package?")


def _downloaded(file: Remote) -> AbstractContextManager[Path]:
    from pytest_bpf.kernels.download import downloaded  # noqa: PLC0415 (costly, seldom needed)

    return downloaded(file)


def _remote(part: str) -> Remote:
    from pytest_bpf.kernels.download import Remote, require_safe  # noqa: PLC0415 (the same)

    url, _, fragment = part.partition("#")
    match = DIGEST.fullmatch(fragment)
    if fragment and not match:
        raise BpfError(f"{part!r}: behind the # stands sha256= and 64 hexadecimal digits")
    sha256 = match[1] if match else ""
    require_safe(url, sha256)
    if not urlsplit(url).path.endswith(SUFFIX):
        raise BpfError(f"{part!r}: kernels are downloaded as {SUFFIX} files, and this is none")
    return Remote(url, _name(url), sha256)


def _local(part: str) -> Path:
    path = Path(part).expanduser().absolute()
    if not path.is_file():
        raise BpfError(f"there is no package {path}: no such file")
    return path


def _name(part: str) -> str:
    return unquote(urlsplit(part).path).rpartition("/")[2]


def _version(path: Path) -> str:
    """Return what changes when a file does."""
    status = path.stat()
    return f"{path}:{status.st_mtime_ns}:{status.st_size}:{status.st_ino}"

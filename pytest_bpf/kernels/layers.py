"""Layers of an image: of each, what a kernel is made of, put into one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from pytest_bpf.errors import BpfError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WANTED = re.compile(r"(boot/(vmlinuz|config)[^/]*|(usr/)?lib/modules/.+)")
"""The paths of a layer that are unpacked: a kernel's image, its configuration, its modules."""

REMOVED = ".wh."
"""What the name of a removed file begins with in the layer that removes it."""

EMPTIED = ".wh..wh..opq"
"""The file in a folder of which nothing from lower layers stays."""

ZSTD = b"\x28\xb5\x2f\xfd"


def unpack(file: Path, kind: str, root: Path, what: str) -> None:
    """Unpack a layer on top of those that are in ``root``; ``what`` is its name in errors.

    Files, folders and links that stay in the image are taken, and no path leads outside of
    ``root``. Raises `BpfError` for what is no layer, and `UnavailableError` without ``zstd`` where
    a layer is compressed so.
    """
    try:
        with _plain(file, what) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                _take(archive, member, root)
    except (tarfile.TarError, EOFError) as error:
        raise BpfError(f"{what} is no archive ({kind or 'of no type'}): {error}") from None


@contextmanager
def _plain(file: Path, what: str) -> Iterator[IO[bytes]]:
    """Open a layer, through ``zstd`` when it is compressed so; gzip and xz are tarfile's."""
    with file.open("rb") as stream:
        if stream.read(4) != ZSTD:
            stream.seek(0)
            yield stream
            return
    if not shutil.which("zstd"):
        raise UnavailableError(f"{what} is compressed by zstd; install the command zstd")
    with subprocess.Popen(["zstd", "-dcq", file], stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield process.stdout


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        return
    *_above, name = parts
    place = root.joinpath(*parts)
    if name.startswith(REMOVED):
        gone = place.parent if name == EMPTIED else place.with_name(name.removeprefix(REMOVED))
        if gone != root and _is_inside(gone.parent, root):
            _remove(gone)
        return
    if not WANTED.fullmatch("/".join(parts)) or not _is_inside(place.parent, root):
        return
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.isreg() and (content := archive.extractfile(member)):
        _remove(place)
        with place.open("wb") as file:
            shutil.copyfileobj(content, file)
        os.utime(place, (member.mtime, member.mtime))
    elif member.islnk() and _is_inside(root / member.linkname, root):
        if not (root / member.linkname).is_file():
            return  # to what is not unpacked
        _remove(place)
        shutil.copy(root / member.linkname, place, follow_symlinks=False)
    elif member.issym() and not member.linkname.startswith("/") and ".." not in member.linkname:
        _remove(place)
        place.symlink_to(member.linkname)


def _is_inside(path: Path, root: Path) -> bool:
    """Say whether a path of an image leads through folders of ``root`` alone."""
    return path == root or (
        root in path.parents
        and ".." not in path.parts
        and not any(p.is_symlink() for p in (path, *path.parents) if root in p.parents)
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

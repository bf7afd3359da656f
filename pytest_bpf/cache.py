"""The cache: a private folder of files named by what they were made from.

Every file appears whole (written aside, then renamed), so that parallel runs and killed ones do
no harm, and whatever is in the folder can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1 << 30
"""How many bytes the cache may hold; beyond it what was not used for longest goes."""

YOUNG = 3600
"""Seconds since its last use during which a file is never pruned: another run may be reading it."""

PRUNE_EVERY = 24 * 3600
"""Seconds between two looks at the size of the whole cache."""

PRUNED = ("btf", "compilers", "entries", "objects", "sources", "vmlinux-*")
"""The folders that pruning is about; kernels and machines, which lie beside them, are not."""


@dataclass(frozen=True)
class Cache:
    """One cache folder; `open_cache` finds the user's."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())

    def path(self, *parts: str) -> Path:
        """Return the path of a file in the cache; the folders above it exist."""
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a folder that is gone afterwards, on the cache's own file system."""
        with _writing(self.folder):
            made = tempfile.TemporaryDirectory(dir=self.path("tmp", "x").parent)
        try:
            with made as folder:
                yield Path(folder)
        finally:
            shutil.rmtree(made.name, ignore_errors=True)  # Ctrl-C may come as it goes

    def adopt(self, fresh: Path, *parts: str) -> Path:
        """Move a finished file of a `workspace` to its place, and return its path there."""
        with _writing(self.folder):
            fresh.chmod(0o600)
            return fresh.replace(self.path(*parts))

    def write(self, content: bytes, *parts: str) -> Path:
        """Put ``content`` into a file, whole or not at all, and return its path."""
        with self.workspace() as folder, _writing(self.folder):
            fresh = folder / "content"
            fresh.write_bytes(content)
            return self.adopt(fresh, *parts)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Let one process at a time make ``name``; the lock dies with its process."""
        with _writing(self.folder):
            descriptor = os.open(self.path("locks", name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def prune(self, limit: int = LIMIT, young: float = YOUNG) -> int:
        """Delete the files used longest ago until at most ``limit`` bytes are left.

        Returns the bytes deleted. What was used in the last ``young`` seconds stays. What killed
        runs left half done goes too, and so do sources as they were (`pytest_bpf.compile.earlier`).
        """
        oldest = time.time() - young
        for folder in (*self.folder.glob("tmp/*"), *self.folder.glob("trees/*")):
            with suppress(FileNotFoundError):
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)
        files = sorted((_last_use(status), status.st_size, path) for path, status in self._files())
        surplus = sum(size for _, size, _ in files) - limit
        deleted = 0
        for last_use, size, path in files:
            if deleted >= surplus or last_use > oldest:
                break
            path.unlink(missing_ok=True)
            deleted += size
        return deleted

    def prune_daily(self) -> None:
        """Prune, when the last time was long ago."""
        marker = self.path("pruned")
        if not marker.exists() or marker.stat().st_mtime < time.time() - PRUNE_EVERY:
            marker.touch(mode=0o600)
            self.prune()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for kind in PRUNED:
            for path in self.folder.glob(f"{kind}/*"):
                with suppress(FileNotFoundError):
                    yield path, path.lstat()


def used(path: os.PathLike[str] | str) -> None:
    """Note that ``path`` is in use, so that pruning spares it; its modification time stays."""
    status = os.stat(path)  # noqa: PTH116 - on the path of every cache hit
    now = time.time_ns()
    if status.st_atime_ns < now - YOUNG * 10**9 // 4:
        with suppress(PermissionError):
            os.utime(path, ns=(now, status.st_mtime_ns))


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 of the parts, in hexadecimal; split as given."""
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else os.fsencode(part)
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def open_cache() -> Cache:
    """Return the user's cache, its folder made when it did not exist.

    The first of these that is set and usable (writable by us and not by everyone):
    ``$PYTEST_BPF_CACHE``, ``$XDG_CACHE_HOME/pytest-bpf``, ``~/.cache/pytest-bpf``; else a private
    folder among the temporary files. Raises `UnavailableError` when not even that can be had.
    """
    for folder in _preferred():
        if _usable(folder):
            return Cache(folder)
    folder = Path(tempfile.gettempdir(), f"pytest-bpf-{os.geteuid()}")
    if _usable(folder):
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            return Cache(folder)
    tried = ", ".join(map(str, (*_preferred(), folder)))
    raise UnavailableError(
        f"no private, writable folder for compiled objects (tried {tried}); "
        "set PYTEST_BPF_CACHE to one"
    )


def _preferred() -> Iterator[Path]:
    if chosen := os.environ.get("PYTEST_BPF_CACHE"):
        yield Path(chosen).absolute()
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):  # noqa: PTH111 - a user without a home is no error here
        if base.startswith("/"):
            yield Path(base, "pytest-bpf")


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError:
        return False
    return not mode & stat.S_IWOTH and os.access(folder, os.R_OK | os.W_OK | os.X_OK)


def _last_use(status: os.stat_result) -> float:
    return max(status.st_atime, status.st_mtime)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BpfError(
            f"cannot write to the cache {folder}: {error.strerror}; "
            "make room there, or set PYTEST_BPF_CACHE to another folder"
        ) from error

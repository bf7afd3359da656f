"""The cache: a private folder of files named by what they were made from.

Every file appears whole (written aside, then renamed), so that parallel runs and killed ones do
no harm, and whatever is in the folder can be deleted at any time. Only files of this user are
read, and only where nobody else could have put them: what is compiled is loaded into the kernel.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 1 << 30
"""How many bytes the cache may hold; beyond it what was not used for longest goes."""

YOUNG = 3600
"""Seconds since its last use during which a file is never pruned: another run may be reading it."""

PRUNE_EVERY = 24 * 3600
"""Seconds between two looks at the size of the whole cache."""

FULL = {errno.ENOSPC, errno.EDQUOT}
"""How the kernel says that a disk is full, or this user's part of it."""

OWNER = "PYTEST_BPF_CACHE_OWNER"
"""The variable by which a machine tells its root user whose files its host's are: a user id."""

PRUNED = ("btf", "compilers", "entries", "lines", "objects", "sources", "vmlinux-*")
"""The folders that pruning is about; kernels and machines, which lie beside them, are not."""


@dataclass(frozen=True)
class Cache:
    """One cache folder; `open_cache` finds the user's."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())

    def path(self, *parts: str) -> Path:
        """Return the path of a file in the cache, its folders made when they do not exist.

        Raises `BpfError` when one of these may be somebody else's, or the disk is full.
        """
        path = self.folder.joinpath(*parts)
        with _writing(self.folder):
            make_folders(path.parent)
        if path.parent != self.folder and not self.trusts(path.parent):
            raise BpfError(f"{path.parent} is not used: it may be somebody else's; remove it")
        return path

    def trusts(self, path: Path) -> bool:
        """Say whether a file or folder of the cache exists and only this user can have made it.

        Each level below the cache's folder is looked at itself, without following links. A warning
        says, once, what is there and not trusted.
        """
        levels = [path, *path.parents]
        for level in reversed(levels[: levels.index(self.folder)]):
            try:
                fault = find_fault(level)
            except OSError:
                return False
            if fault:
                _warn_once(f"{level} is not used: {fault}")
                return False
        return True

    def read(self, *parts: str) -> bytes | None:
        """Return the content of a file that `trusts` holds for; None without one."""
        path = self.folder.joinpath(*parts)
        try:
            return path.read_bytes() if self.trusts(path) else None
        except OSError:
            return None

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a folder that is gone afterwards, on the cache's own file system.

        A lock on the folder, which dies with this process, tells `sweep` that it is in use. Raises
        `BpfError` when the disk is full, also for what the caller writes there.
        """
        parent = self.path("tmp", "x").parent
        with ExitStack() as stack:
            with self.lock("tmp"), _writing(self.folder):
                folder = parent / f"{os.getpid()}-{secrets.token_hex(8)}"
                stack.callback(_remove, folder)
                folder.mkdir(mode=0o700)
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                yield folder
            except OSError as error:
                if error.errno in FULL:
                    raise _write_error(self.folder, error) from error
                raise

    def sweep(self) -> list[Path]:
        """Remove the workspaces of killed processes, and return their paths."""
        removed = []
        folders = list(self.folder.glob("tmp/[0-9]*-*"))
        with self.lock("tmp") if folders else nullcontext():
            for folder in folders:
                with suppress(OSError):
                    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(folder, ignore_errors=True)
                        removed.append(folder)
                    finally:
                        os.close(descriptor)
        return removed

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
        runs left half done goes too, and so do sources as they were (`pytest_bpf.compile.trees`).
        """
        oldest = time.time() - young
        self.sweep()
        for folder in (*self.folder.glob("tmp/tmp*"), *self.folder.glob("trees/*")):
            with suppress(FileNotFoundError):
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)
        files = sorted((last_use(status), status.st_size, path) for path, status in self._files())
        surplus = sum(size for _, size, _ in files) - limit
        deleted = 0
        for used, size, path in files:
            if deleted >= surplus or used > oldest:
                break
            path.unlink(missing_ok=True)
            deleted += size
        return deleted

    def prune_daily(self) -> None:
        """Prune, when the last time was long ago."""
        marker = self.path("pruned")
        if not marker.exists() or marker.stat().st_mtime < time.time() - PRUNE_EVERY:
            with _writing(self.folder):
                marker.touch(mode=0o600)
            self.prune()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for kind in PRUNED:
            for path in self.folder.glob(f"{kind}/*"):
                with suppress(FileNotFoundError):
                    yield path, path.lstat()


def mark_used(path: os.PathLike[str] | str) -> None:
    """Note that ``path`` is in use, so that it is not removed as old.

    The modification time of a file stays, that of a folder does not (`last_use`).
    """
    status = os.stat(path)  # noqa: PTH116 - on the path of every cache hit
    now = time.time_ns()
    if last_use(status) < now / 10**9 - YOUNG / 4:
        modified = now if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
        with suppress(PermissionError):
            os.utime(path, ns=(now, modified))


def last_use(status: os.stat_result) -> float:
    """Return when a file or folder of the cache was used last, as `mark_used` notes it.

    Of a folder it is the modification time: who only lists it (``du``, a backup) uses nothing of
    it, but changes the time of its last access.
    """
    if stat.S_ISDIR(status.st_mode):
        return status.st_mtime
    return max(status.st_atime, status.st_mtime)


def forget_old(
    folder: Path,
    seconds: float,
    remove: Callable[[Path], None] | None = None,
    *,
    most: int = sys.maxsize,
) -> None:
    """Remove what is in a folder of the cache and was not used for so long, by ``remove``.

    Of the others, the ``most`` that were used last stay.
    """
    oldest = time.time() - seconds
    uses = []
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # another run is quicker
            uses.append((last_use(path.lstat()), path))
    uses.sort(reverse=True)
    for number, (used, path) in enumerate(uses):
        if used < oldest or number >= most:
            with suppress(FileNotFoundError):
                (remove or _delete)(path)


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 of the parts, in hexadecimal; split as given."""
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else os.fsencode(part)
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


_choices: list[list[Path]] = []
"""The folder that each session has chosen, the innermost session last; empty for no choice."""


def choose(folder: Path | None) -> Callable[[], None]:
    """Let `open_cache` use ``folder``, or with None the environment's; return what undoes that."""
    choice = [] if folder is None else [folder]
    _choices.append(choice)

    def undo() -> None:
        _choices[:] = [other for other in _choices if other is not choice]

    return undo


def chosen_folder() -> Path | None:
    """Return the folder that the innermost session has chosen, or else ``$PYTEST_BPF_CACHE``."""
    if _choices and _choices[-1]:
        return _choices[-1][0]
    name = os.environ.get("PYTEST_BPF_CACHE")
    return Path(name).absolute() if name else None


def open_cache() -> Cache:
    """Return the user's cache, its folder made when it did not exist.

    The first of these that is set, can be written, and is ours alone: `chosen_folder`,
    ``$XDG_CACHE_HOME/pytest-bpf``, ``~/.cache/pytest-bpf``; else a private folder among the
    temporary files. A folder is ours alone when it and the folders above it belong to us or to
    root, and nobody else can write to them; a warning says why one is not. Raises
    `UnavailableError` when not even a temporary folder can be had.
    """
    faults = []
    for folder in _candidates():
        if fault := folder_fault(folder):
            faults.append(f"{folder}: {fault}")
        else:
            return Cache(folder)
    raise UnavailableError(
        f"no private, writable folder for compiled objects ({'; '.join(faults)}); "
        "set PYTEST_BPF_CACHE to one"
    )


def find_fault(path: Path, *, above: bool = False) -> str | None:
    """Return why somebody else may have made a file or folder, or None; raise `OSError`.

    ``above`` is for the folders above the cache: they may also be root's (or whoever has ``/``, as
    root is somebody else in a user namespace), may be links, and may be writable by all with the
    sticky bit, by which nobody removes what is another's (``/tmp``).
    """
    status = path.lstat()
    owners = _owners() | ({0, os.lstat("/").st_uid} if above else set())
    if status.st_uid not in owners:
        return f"it belongs to user {status.st_uid}, not to {os.geteuid()}"
    if stat.S_ISLNK(status.st_mode):
        return None if above else "it is a symbolic link"
    if status.st_mode & 0o022 and not (above and status.st_mode & stat.S_ISVTX):
        return f"others than its owner can write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _remove(folder: Path) -> None:
    """Remove a folder, also while a process that is being killed still writes into it."""
    deadline = time.monotonic() + LAST_WRITES
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder) or time.monotonic() > deadline:
            return
        time.sleep(0.01)


LAST_WRITES = 5.0
"""Seconds that a process that was killed may take to end."""


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, each for its owner alone, whatever the umask is."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _candidates() -> Iterator[Path]:
    if choice := chosen_folder():
        yield choice
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):  # noqa: PTH111 - a user without a home is no error here
        if base.startswith("/"):
            yield Path(base, "pytest-bpf")
    yield Path(tempfile.gettempdir(), f"pytest-bpf-{os.geteuid()}")


_faultless: dict[Path, tuple[object, ...]] = {}
"""The folders that can be the cache, and the `_state` in which they were then."""


def _state(folder: Path) -> tuple[object, ...]:
    """Return what tells a folder from another in its place; the change time says who may write."""
    status = os.lstat(folder)  # each load looks at it: pathlib takes longer
    owner = os.environ.get(OWNER)
    return status.st_dev, status.st_ino, status.st_ctime_ns, os.geteuid(), owner


def folder_fault(folder: Path) -> str | None:
    """Return why a folder cannot be the cache, None when it can; make it when it is not there.

    When it could before and has not changed since, nobody but its owner and root can have changed
    the folders above it.
    """
    with suppress(OSError):
        if _faultless.get(folder) == _state(folder):
            return None
    try:
        real = Path(os.path.realpath(folder.parent))
        for level in {*reversed(folder.parents), *reversed(real.parents), real}:
            if os.path.lexists(level) and (fault := find_fault(level, above=True)):
                _warn_once(f"the cache {folder} is not used: {level}: {fault}")
                return f"{level}: {fault}"
        make_folders(folder)
        if fault := find_fault(folder):
            _warn_once(f"the cache {folder} is not used: {fault}")
            return fault
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return "it cannot be written"
    _faultless[folder] = _state(folder)
    return None


def _owners() -> set[int]:
    """Return whose files are ours: this user's, and in a machine those of its host's user."""
    host = os.environ.get(OWNER, "")
    return {os.geteuid(), *([int(host)] if host.isdecimal() else [])}


@cache
def _warn_once(sentence: str) -> None:
    warnings.warn(f"pytest-bpf: {sentence}", stacklevel=2)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _write_error(folder, error) from error


def _write_error(folder: Path, error: OSError) -> BpfError:
    return BpfError(
        f"cannot write to the cache {folder}: {error.strerror}; "
        "make room there, or set PYTEST_BPF_CACHE to another folder"
    )

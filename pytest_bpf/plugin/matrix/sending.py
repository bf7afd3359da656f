"""The project's files, sent along to a host: over execnet's connection, and only what changed."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from execnet import RSync

from pytest_bpf.cache import digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from execnet import Gateway

LEFT_OUT = ("__pycache__", "node_modules")
"""Folders that stay here; so does what begins with a dot, and environments of Python."""


@dataclass(frozen=True)
class Project:
    """What is sent: everything below ``root``; tests run in ``folder``, which is below it, too.

    ``files`` are those that git knows and does not ignore, None where there is no git.
    """

    root: Path
    folder: Path
    files: frozenset[Path] | None

    @property
    def key(self) -> str:
        """The name of its folder on another host: that of the root, this machine, and its path."""
        return f"{self.root.name}-{digest(os.uname().nodename, str(self.root))[:12]}"

    def has(self, path: Path) -> bool:
        """Say whether a file or folder belongs to it."""
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            return False
        if path.name in LEFT_OUT or (path / "pyvenv.cfg").exists():
            return False
        if self.files is not None:
            return path in self.files
        return not path.name.startswith(".")


def project(folder: Path, root: Path) -> Project:
    """Return the project of a session: git's, with all that it knows, or else pytest's root."""
    listed = _git(root, "rev-parse", "--show-toplevel")
    if listed is None:
        return Project(root, folder if folder.is_relative_to(root) else root, None)
    top = Path(listed.strip())
    names = _git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or ""
    files = frozenset(_with_folders(top, names.split("\0")))
    return Project(top, folder if folder.is_relative_to(top) else root, files)


def send(gateway: Gateway, what: Project, place: str) -> None:
    """Make the folder ``place`` on a host the same as the project here."""
    sync = _Sync(what)
    sync.add_target(gateway, place, delete=True)
    sync.send()


class _Sync(RSync):
    def __init__(self, what: Project) -> None:
        super().__init__(what.root, verbose=False)
        self._project = what

    def filter(self, path: str) -> bool:
        """Say whether a path is sent."""
        return self._project.has(Path(path))


def _with_folders(top: Path, names: Iterable[str]) -> Iterable[Path]:
    """Return files by their names below ``top``, and the folders on the way.

    The folder of a submodule is a name of its own, but the files in it are not.
    """
    for name in filter(None, names):
        path = top / name
        if path.is_dir():
            yield from path.rglob("*")
        yield path
        yield from (folder for folder in path.parents if folder.is_relative_to(top))


def _git(folder: Path, *words: str) -> str | None:
    """Return what git says, None where there is none, or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None

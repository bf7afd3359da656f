"""Sources as they were: another folder stands for the one that the tests are in."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pytest_bpf.cache import open_cache
from pytest_bpf.errors import BpfError, UnavailableError


@dataclass(frozen=True)
class Tree:
    """Files as they were: in ``folder``, at the paths that they have below ``root``.

    ``name`` is what the user calls it: a revision, or a folder.
    """

    root: Path
    folder: Path
    name: str

    def file(self, path: Path) -> Path:
        """Return where a file was; one that is not below the root is where it is.

        Raises `BpfError` for one that there was not.
        """
        inside = self._inside(path)
        if inside is None:
            return path
        if not inside.exists():
            raise BpfError(f"{inside.relative_to(self.folder)} is not in {self.name}")
        return inside

    def folders(self, path: Path) -> tuple[Path, ...]:
        """Return where the headers of a folder are sought: as they were, else as they are.

        What is made by a build, or lies in another repository, is in no revision.
        """
        inside = self._inside(path)
        return (inside, path) if inside and inside.is_dir() else (path,)

    @property
    def flags(self) -> tuple[str, ...]:
        """What makes the compiler name files as if they were in the root."""
        return (f"-ffile-prefix-map={self.folder}={self.root}",)

    def _inside(self, path: Path) -> Path | None:
        real = path.parent.resolve() / path.name
        if not real.is_relative_to(self.root) or real.is_relative_to(self.folder):
            return None
        return self.folder / real.relative_to(self.root)


def of_folder(name: str, folder: Path, root: Path) -> Tree:
    """Return the tree of a ``folder`` that has what ``root`` had, another checkout of it."""
    return Tree(root.resolve(), folder.resolve(), name)


def of_revision(revision: str, folder: Path) -> Tree:
    """Return the tree of a ``revision`` of the git repository that ``folder`` is in.

    Its files are put into the cache, once. Raises `BpfError` with git's reason, and
    `UnavailableError` without git.
    """
    root = Path(_git(folder, "rev-parse", "--show-toplevel"))
    commit = _git(root, "rev-parse", "--verify", f"{revision}^{{commit}}")
    cache = open_cache()
    place = cache.path("trees", commit)
    with cache.lock("trees"):
        if not cache.trusts(place):
            with cache.workspace() as workspace:
                files = workspace / "tree"
                files.mkdir()
                index = {"GIT_INDEX_FILE": str(workspace / "index")}
                _git(root, "read-tree", commit, **index)
                _git(root, "checkout-index", "--all", f"--prefix={files}/", **index)
                files.rename(place)
        os.utime(place)
    return Tree(root, place, f"{revision} ({commit[:10]})")


def _git(folder: Path, *words: str, **environment: str) -> str:
    """Return what git says; another user's repository is as good as our own: we run its tests."""
    git = shutil.which("git")
    if git is None:
        raise UnavailableError("there is no git to find a revision with; install git")
    process = subprocess.run(
        [git, "-c", "safe.directory=*", "-C", str(folder), *words],
        capture_output=True,
        check=False,
        env=os.environ | environment,
        text=True,
    )
    if process.returncode:
        messages = process.stderr.strip().splitlines()
        why = (
            messages[-1]
            if messages
            else f"git {words[0]} ended with exit status {process.returncode}"
        )
        raise BpfError(why.removeprefix("fatal: "))
    return process.stdout.strip()

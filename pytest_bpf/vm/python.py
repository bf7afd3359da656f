"""The Python that waits in the machine: the files it is made of, and when they have changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WARM = Path(__file__).with_name("guest") / "warm.py"
"""The script that warms up here, and lists what it reads."""

ELSEWHERE = ("/proc/", "/sys/", "/dev/", "/run/")
ALWAYS = ("/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf")

LINKS = ("/lib", "/lib64", "/bin", "/usr/lib64")
"""By these the dynamic loader finds libraries, where they are links to folders below ``/usr``."""

LOADER = re.compile(rb"\0(/lib[\w/-]*/ld-[\w.-]+)\0")
"""The dynamic loader that an ELF program names (``PT_INTERP``)."""


@dataclass(frozen=True)
class Closure:
    """The files a warm Python has read, with the names of the top modules it looked for."""

    files: tuple[str, ...]
    modules: tuple[str, ...]


def inspect(path: list[str], folder: Path) -> Closure:
    """Warm a Python up on this machine, with ``sys.path`` as given, and see what it reads.

    Its temporary files are in ``folder``, which is swept when this is killed.
    """
    command = [sys.executable, str(WARM), json.dumps(path)]
    own = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"{sys.executable} cannot be made ready for a machine: {reason}")
    seen = json.loads(done.stdout.splitlines()[-1])
    files = set(seen["opened"]) | set(_siblings(seen["opened"])) | set(_of_installation(path))
    kept = (f for f in files if not f.startswith(ELSEWHERE) and os.path.isfile(f))  # noqa: PTH113
    installed = _distributions(path)
    everything = {*kept, *installed, *ALWAYS, *LINKS, sys.executable}
    return Closure(tuple(sorted(everything)), tuple(seen["modules"]))


def stamp(closure: Closure, path: Iterable[str]) -> dict[str, Any]:
    """Return, for JSON, what must stay the same for a saved Python to be one started now.

    Compiled files are not part of it: they follow their sources.
    """
    names = set(closure.modules)
    return {
        "modules": list(closure.modules),
        "files": {file: _stat(file) for file in closure.files if not file.endswith(".pyc")},
        "folders": {folder: _listing(folder, names) for folder in path},
    }


def is_current(old: dict[str, Any], path: Iterable[str]) -> bool:
    """Tell whether nothing has changed since `stamp` gave ``old``."""
    return stamp(Closure(tuple(old["files"]), tuple(old["modules"])), path) == old


def _siblings(files: Iterable[str]) -> Iterator[str]:
    """What goes with these files: compiled modules written just now, the names of a library."""
    for file in map(Path, files):
        if file.suffix == ".py":
            yield from map(str, file.parent.glob(f"__pycache__/{file.stem}.*.pyc"))
        elif ".so." in file.name:
            yield from map(str, file.parent.glob(f"{file.name.partition('.so.')[0]}.so*"))


def _of_installation(path: Iterable[str]) -> Iterator[str]:
    """What Python reads before anything can listen."""
    yield f"{sys.prefix}/pyvenv.cfg"
    if match := LOADER.search(Path(sys.executable).read_bytes()[:4096]):
        yield os.fsdecode(match[1])
    for folder in path:
        yield from map(str, Path(folder or ".").glob("*.pth"))
        yield from map(str, Path(folder or ".").glob("*-info/entry_points.txt"))


def _distributions(path: Iterable[str]) -> Iterator[str]:
    """The folders of installed distributions; those that have no entry points are known so."""
    for folder in path:
        yield from map(str, Path(folder or ".").glob("*.*-info"))


def _stat(file: str) -> list[int]:
    try:
        status = os.stat(file)  # noqa: PTH116 (a thousand of them, at every start)
    except OSError:
        return []
    return [status.st_mtime_ns, status.st_size, status.st_ino]


def _listing(folder: str, names: set[str]) -> list[str]:
    """Return the entries of a folder that could change what an import finds."""
    try:
        entries = os.listdir(folder or ".")  # noqa: PTH208
    except OSError:
        return []
    return sorted(
        entry
        for entry in entries
        if entry.partition(".")[0] in names or entry.endswith((".pth", ".dist-info", ".egg-info"))
    )

"""Finding a C compiler with the BPF back end: clang, or the clang inside the ``ziglang`` wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import Cache, digest, open_cache
from pytest_bpf.errors import CompileError, UnavailableError, near_matches

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = "bpfel" if sys.byteorder == "little" else "bpfeb"
"""LLVM's name of the BPF back end in this machine's byte order."""

INSTALL = (
    "install clang (apt install clang) or the ziglang wheel (pip install 'pytest-bpf[compiler]')"
)

CLANG = re.compile(r"clang(?:-(\d+))?")
"""The names of a clang on PATH; the one without a number goes before the others."""

PROBE_TIMEOUT = 30
"""Seconds a compiler may take to compile nothing."""


@dataclass(frozen=True)
class Compiler:
    """A clang that compiles for BPF.

    ``command`` starts it, ``flags`` make it compile for BPF, ``name`` is the program's
    (``"clang-14"``, ``"zig"``), ``version`` is clang's (``"14.0.6"``), and ``identity`` differs
    when the program file does.
    """

    command: tuple[str, ...]
    name: str
    version: str
    identity: str
    flags: tuple[str, ...]

    def release(self) -> tuple[int, ...]:
        """Return the version as numbers, to compare: ``(14, 0, 6)``."""
        return tuple(map(int, re.findall(r"\d+", self.version)[:3]))

    def __str__(self) -> str:
        return f"zig's clang {self.version}" if self.name == "zig" else f"clang {self.version}"


def find_compiler(
    choice: str | os.PathLike[str] | None = None, *, cache: Cache | None = None
) -> Compiler:
    """Return the compiler to use.

    ``choice`` is a path, a name on PATH, or ``"zig"``; without it ``$PYTEST_BPF_CC`` is, and
    without that the newest of ``clang`` and ``clang-NN`` on PATH and the ``ziglang`` wheel.

    Raises `CompileError` when the compiler that was chosen is not there or has no BPF back end: it
    is never replaced by another. Raises `UnavailableError` when none was chosen and there is none.
    """
    cache = cache or open_cache()
    if name := os.fspath(choice or os.environ.get("PYTEST_BPF_CC", "")):
        try:
            return _probe(_program(name, "" if choice else " (PYTEST_BPF_CC)"), cache)
        except UnavailableError as error:
            raise CompileError(str(error)) from None
    compilers, refusals = [], []
    for program in _candidates():
        try:
            compilers.append(_probe(program, cache))
        except UnavailableError as error:
            refusals.append(str(error))
    if compilers:
        return max(compilers, key=Compiler.release)  # the first one of equals
    reasons = "; ".join(refusals) or "no clang or clang-NN on PATH, no ziglang wheel"
    raise UnavailableError(f"no compiler with the BPF back end ({reasons}); {INSTALL}")


def _program(name: str, origin: str) -> Path:
    """Return the program of a name; `CompileError` when there is none."""
    if name == "zig" and (wheel := _wheel()):
        return wheel
    if path := shutil.which(name):
        return Path(path).absolute()
    close = near_matches(name, [path.name for path in _candidates()]) if os.sep not in name else ""
    where = "is no program that can be run" if os.sep in name else "is not on PATH"
    raise CompileError(f"the compiler {name!r}{origin} {where}{close or f'; {INSTALL}'}")


def _candidates() -> Iterator[Path]:
    """Yield clang, then clang-NN from the newest, then the wheel's zig."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    folders = tuple((folder, _last_change(folder)) for folder in path)
    yield from (path for path in _on_path(folders) if os.access(path, os.X_OK))
    if wheel := _wheel():
        yield wheel


def _last_change(folder: str) -> int:
    with suppress(OSError):
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 (at each compilation)
    return 0


@lru_cache(maxsize=64)
def _on_path(folders: tuple[tuple[str, int], ...]) -> tuple[Path, ...]:
    """Return each clang of these folders, looked for again when names were added or removed."""
    found: dict[int, Path] = {}
    for folder, _ in folders:
        with suppress(OSError):
            for name in os.listdir(folder or "."):  # noqa: PTH208
                if (match := CLANG.fullmatch(name)) and shutil.which(name, path=folder):
                    number = int(match[1] or sys.maxsize)
                    found.setdefault(number, Path(folder, name).absolute())
    return tuple(found[number] for number in sorted(found, reverse=True))


def _wheel() -> Path | None:
    """Return the program in the ``ziglang`` wheel: it starts sooner than ``python -m ziglang``."""
    programs = (Path(folder, "zig") for folder in _wheel_folders(tuple(sys.path)))
    return next((program for program in programs if program.is_file()), None)


@lru_cache(maxsize=8)
def _wheel_folders(_path: tuple[str, ...]) -> tuple[str, ...]:
    """Look for the wheel, once for each path: Python does not look for new packages either."""
    spec = find_spec("ziglang")
    return tuple((spec and spec.submodule_search_locations) or ())


def _probe(program: Path, cache: Cache) -> Compiler:
    """Return the compiler when it compiles for BPF, asking it only once per program file."""
    status = program.stat()
    file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _probe_file(program, file, cache)


@lru_cache(maxsize=64)
def _probe_file(program: Path, file: tuple[int, int, int, int], cache: Cache) -> Compiler:
    is_zig = program.name.startswith("zig")
    command = (str(program), "clang") if is_zig else (str(program),)
    flags = (f"--target={TARGET}", *(_zig_resources(program) if is_zig else ()))
    identity = f"{program.resolve()}:{file[2]}:{file[3]}"
    record = cache.folder / "compilers" / digest(identity, *command, *flags)
    try:
        version = str(json.loads(cache.read("compilers", record.name) or b"")["version"])
    except (OSError, ValueError, KeyError, TypeError):
        version = _ask((*command, *flags))
        cache.write(json.dumps({"version": version}).encode(), "compilers", record.name)
    return Compiler(command, "zig" if is_zig else program.name, version, identity, flags)


def _zig_resources(program: Path) -> tuple[str, ...]:
    """Return where zig keeps clang's own headers (stddef.h ...): not where clang would look."""
    home = program.resolve().parent
    for lib in (home / "lib", home.parent / "lib" / "zig", home.parent / "lib"):
        if (lib / "include" / "stddef.h").is_file():
            return ("-resource-dir", str(lib))
    return ()


def _ask(command: tuple[str, ...]) -> str:
    """Compile nothing for BPF and return clang's version, which ``-v`` prints on the way."""
    probe = [*command, "-v", "-c", "-x", "c", os.devnull, "-o", os.devnull]
    try:
        process = subprocess.run(
            probe,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]} cannot be run: {error}") from None
    output = process.stderr.decode(errors="replace")
    version = re.search(r"clang version (\S+)", output)
    if process.returncode or not version:
        last = output.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
        raise UnavailableError(f"{command[0]} does not compile for BPF: {last}")
    return version[1]

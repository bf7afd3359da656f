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
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import Cache, digest, open_cache
from pytest_bpf.errors import UnavailableError, near_matches

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = "bpfel" if sys.byteorder == "little" else "bpfeb"
"""LLVM's name of the BPF back end in this machine's byte order."""

INSTALL = (
    "install clang (apt install clang) or the ziglang wheel (pip install 'pytest-bpf[compiler]')"
)

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

    def __str__(self) -> str:
        return f"zig's clang {self.version}" if self.name == "zig" else f"clang {self.version}"


def find(choice: str | os.PathLike[str] | None = None, *, cache: Cache | None = None) -> Compiler:
    """Return the compiler to use.

    In this order: ``choice`` (a path, a name on PATH, or ``"zig"``), ``$PYTEST_BPF_CC`` likewise,
    ``clang`` on PATH, the newest ``clang-NN`` on PATH, the ``ziglang`` wheel. Raises
    `UnavailableError` when there is none; one that was asked for is never replaced by another.
    """
    cache = cache or open_cache()
    if wanted := os.fspath(choice or os.environ.get("PYTEST_BPF_CC", "")):
        return _probed(_named(wanted, "the option" if choice else "PYTEST_BPF_CC"), cache)
    refusals = []
    for program in _installed():
        try:
            return _probed(program, cache)
        except UnavailableError as error:
            refusals.append(str(error))
    tried = "; ".join(refusals) or "no clang or clang-NN on PATH, no ziglang wheel"
    raise UnavailableError(f"no compiler with the BPF back end ({tried}); {INSTALL}")


def _named(wanted: str, said_by: str) -> Path:
    if wanted == "zig" and (wheel := _wheel()):
        return wheel
    if found := shutil.which(wanted):
        return Path(found).absolute()
    close = near_matches(wanted, [p.name for p in _installed()]) if os.sep not in wanted else ""
    where = "is no program that can be run" if os.sep in wanted else "is not on PATH"
    raise UnavailableError(f"the compiler {wanted!r} ({said_by}) {where}{close or f'; {INSTALL}'}")


def _installed() -> Iterator[Path]:
    """Find clang, then clang-NN from the newest, then the wheel's zig, one at a time."""
    if path := shutil.which("clang"):
        yield Path(path).absolute()
    numbered: dict[int, Path] = {}
    for folder in os.get_exec_path():
        with suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208 - names are enough
                if (match := re.fullmatch(r"clang-(\d+)", name)) and shutil.which(name):
                    numbered.setdefault(int(match[1]), Path(folder, name).absolute())
    yield from (numbered[number] for number in sorted(numbered, reverse=True))
    if wheel := _wheel():
        yield wheel


def _wheel() -> Path | None:
    """Return the program in the ``ziglang`` wheel: it starts sooner than ``python -m ziglang``."""
    spec = find_spec("ziglang")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (program := Path(folder, "zig")).is_file():
            return program
    return None


def _probed(program: Path, cache: Cache) -> Compiler:
    """Return the compiler when it compiles for BPF, asking it only once per program file."""
    is_zig = program.name.startswith("zig")
    command = (str(program), "clang") if is_zig else (str(program),)
    flags = (f"--target={TARGET}", *(_zig_resources(program) if is_zig else ()))
    status = program.stat()
    identity = f"{program.resolve()}:{status.st_size}:{status.st_mtime_ns}"
    known = cache.folder / "compilers" / digest(identity, *command, *flags)
    try:
        version = str(json.loads(known.read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        version = _ask((*command, *flags))
        cache.write(json.dumps({"version": version}).encode(), "compilers", known.name)
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
        done = subprocess.run(
            probe,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]} cannot be run: {error}") from None
    said = done.stderr.decode(errors="replace")
    version = re.search(r"clang version (\S+)", said)
    if done.returncode or not version:
        last = said.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise UnavailableError(f"{command[0]} does not compile for BPF: {last}")
    return version[1]

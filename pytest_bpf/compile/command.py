"""What the compiler is asked to do for one source, before any file of the cache is involved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import digest
from pytest_bpf.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_bpf.compile.compilers import Compiler
    from pytest_bpf.compile.sources import Source

FORMAT = "2"
"""Part of every key: raise it when what an older version cached must not be used."""

FLAGS = (
    *("-g", "-O2", "-Wall", "-std=gnu17", "-fno-stack-protector", "-ferror-limit=0"),
    *("-fno-crash-diagnostics", "-fms-extensions", "-Wno-microsoft-anon-tag"),
)
"""What every source is compiled with.

``-g`` gives BTF; the types of newer kernels need ``-fms-extensions`` (an unnamed member of a named
structure); ``-fno-crash-diagnostics`` keeps a crashing clang from leaving reports in ``/tmp``. The
instruction set (``-mcpu``) is the compiler's own choice, and a warning stays a warning.
"""

HEADERS = Path(__file__).parent / "include"
"""Where ``bpf_test.h`` is."""

ARCHITECTURES = {
    "x86_64": ("x86_64-linux-gnu", "__TARGET_ARCH_x86", "__x86_64__"),
    "aarch64": ("aarch64-linux-gnu", "__TARGET_ARCH_arm64"),
    "armv7l": ("arm-linux-gnueabihf", "__TARGET_ARCH_arm"),
    "i686": ("i386-linux-gnu", "__TARGET_ARCH_x86"),
    "loongarch64": ("loongarch64-linux-gnu", "__TARGET_ARCH_loongarch"),
    "ppc64le": ("powerpc64le-linux-gnu", "__TARGET_ARCH_powerpc", "__powerpc64__"),
    "riscv64": ("riscv64-linux-gnu", "__TARGET_ARCH_riscv"),
    "s390x": ("s390x-linux-gnu", "__TARGET_ARCH_s390", "__s390x__"),
}
"""By ``uname -m``: Debian's folder in /usr/include, and the macros to define.

``__TARGET_ARCH_*`` is for libbpf's ``bpf_tracing.h``. The others are what the headers of the kernel
and of glibc tell 64 bits by; without them ``stdint.h`` asks for the 32-bit ``gnu/stubs-32.h``.
"""


@dataclass(frozen=True)
class Task:
    """One source and the command for it.

    ``arguments`` start with the compiler; what goes in and comes out is not among them.
    ``include_dirs`` are the caller's folders, absolute. ``key`` differs when any of this does.
    """

    source: Source
    compiler: Compiler
    arguments: tuple[str, ...]
    include_dirs: tuple[str, ...]
    key: str


def plan(
    source: Source,
    compiler: Compiler,
    *,
    include_dirs: Iterable[os.PathLike[str] | str],
    defines: Mapping[str, str | int | None],
    flags: Sequence[str],
) -> Task:
    """Return the task of compiling ``source``; `CompileError` when an option makes no sense."""
    folders = tuple(str(Path(folder).absolute()) for folder in include_dirs)
    for folder in folders:
        if not Path(folder).is_dir():
            raise CompileError(f"the include folder {folder} does not exist")
    arguments = (
        *(*compiler.command, *compiler.flags, *FLAGS),
        *(f"-D{macro}" for macro in _architecture()[1:]),
        *(define(macro, value) for macro, value in defines.items()),
        *(word for folder in folders for word in ("-I", folder)),
        *(word for folder in system_folders() for word in ("-idirafter", folder)),
        *flags,
    )
    key = digest(
        *(FORMAT, str(source.path), source.label, compiler.identity, *arguments),
        *(source.content, str(Path.cwd()) if flags else ""),
        *(os.environ.get(variable, "") for variable in ("CPATH", "C_INCLUDE_PATH")),
    )
    return Task(source, compiler, arguments, folders, key)


def system_folders() -> tuple[str, ...]:
    """Return where the system's headers and ours are, looked at after the compiler's own."""
    multiarch = (f"/usr/include/{folder}" for folder in _architecture()[:1])
    return ("/usr/local/include", *multiarch, "/usr/include", str(HEADERS))


def _architecture() -> tuple[str, ...]:
    return ARCHITECTURES.get(os.uname().machine, ())


def define(macro: str, value: str | int | None) -> str:
    """Return the compiler's word that defines a macro; `CompileError` for what is no name."""
    if not macro.isidentifier():
        raise CompileError(f"{macro!r} cannot be defined: it is not a C identifier")
    if value is None:
        return f"-D{macro}"
    return f"-D{macro}={int(value) if isinstance(value, bool) else value}"

"""Compiling as a Makefile does: clang alone, or clang for the host and llc for BPF."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.compile.command import ARCHITECTURES
from pytest_bpf.kernel.btf import vmlinux_h

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_bpf.compile import Compiler


@dataclass(frozen=True)
class Project:
    """A folder of sources, and what its Makefile gives the compiler."""

    folder: Path
    include_dirs: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()
    kernel: tuple[Path, ...] = field(default=())
    """Unpacked headers of a kernel, for sources that want those: the common ones, and the built."""

    def sources(self) -> list[Path]:
        """Return the files that have programs: those with a SEC() of a function."""
        return [path for path in sorted(self.folder.rglob("*.c")) if _is_program(path)]


def _is_program(path: Path) -> bool:
    text = path.read_text(errors="replace")
    return ("SEC(" in text and "bpf_helpers.h" in text) or path.name.endswith(".bpf.c")


def compile_plain(
    compiler: Compiler, project: Project, source: Path, kept: Path
) -> tuple[Path | None, str]:
    """Return the object that plain clang makes, and what it printed; None when it fails."""
    command = [*compiler.command, *compiler.flags, *flags(project, source)]
    return _run([*command, "-c", str(source), "-o"], source, kept)


def flags(project: Project, source: Path) -> list[str]:
    """Return what a Makefile would say."""
    _, *macros = ARCHITECTURES[os.uname().machine]
    folders = [source.parent, *project.include_dirs]
    system = [ARCHITECTURES[os.uname().machine][0]]
    return [
        *("-g", "-O2", *project.flags),
        *(f"-D{macro}" for macro in macros),
        *(word for folder in folders for word in ("-I", str(folder))),
        *("-idirafter", str(_vmlinux_folder()), "-idirafter", "/usr/local/include"),
        *("-idirafter", f"/usr/include/{system[0]}", "-idirafter", "/usr/include"),
    ]


def pipeline(project: Project) -> str:
    """Return the older pipeline as one shell command, with ``{source}`` and ``{object}``."""
    common, built = project.kernel
    folders: Sequence[Path] = [
        *(common / "arch/x86/include", built / "arch/x86/include/generated", common / "include"),
        *(built / "include", common / "arch/x86/include/uapi"),
        *(built / "arch/x86/include/generated/uapi", common / "include/uapi"),
        *(built / "include/generated/uapi", *project.include_dirs),
    ]
    words = [
        *("clang", "-nostdinc", "-isystem", "$(clang -print-resource-dir)/include"),
        *(word for folder in folders for word in ("-I", str(folder))),
        *("-include", str(common / "include/linux/kconfig.h")),
        *("-D__KERNEL__", "-D__BPF_TRACING__", "-D__TARGET_ARCH_x86", "-Wno-everything"),
        *("-fno-stack-protector", "-g", "-O2", "-emit-llvm", *project.flags),
        *("-idirafter", "/usr/include", "-c", "{source}", "-o", "-"),
    ]
    return " ".join(words) + " | llc -march=bpf -filetype=obj -o {object}"


def compile_by_pipeline(project: Project, source: Path, kept: Path) -> tuple[Path | None, str]:
    """Return the object of ``clang | llc``, and what they printed."""
    target = _target(pipeline(project), source, kept)
    if not target.exists():
        command = pipeline(project).format(source=source, object=target)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            target.unlink(missing_ok=True)
            return None, done.stderr
    return target, ""


def _run(command: list[str], source: Path, kept: Path) -> tuple[Path | None, str]:
    target = _target(" ".join(command), source, kept)
    if target.exists():
        return target, ""
    done = subprocess.run([*command, str(target)], capture_output=True, text=True, check=False)
    return (target, "") if done.returncode == 0 else (None, done.stderr)


def _target(command: str, source: Path, kept: Path) -> Path:
    key = sha256(command.encode() + source.read_bytes()).hexdigest()[:12]
    return kept / f"{source.name.partition('.')[0]}-{key}.o"


def _vmlinux_folder() -> Path:
    """Return the folder of the vmlinux.h of the running kernel, made once."""
    folder = open_cache().folder / f"vmlinux-{vmlinux_h.identity(vmlinux_h.RUNNING)[:16]}"
    if not (folder / "vmlinux.h").exists():
        folder.mkdir(exist_ok=True)
        vmlinux_h.write(vmlinux_h.RUNNING, folder / "vmlinux.h")
    return folder

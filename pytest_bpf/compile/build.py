"""Compiling one source, or finding that it was compiled before."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pytest_bpf.cache import Cache, digest, open_cache
from pytest_bpf.compile.command import Task, plan
from pytest_bpf.compile.compilers import Compiler, find_compiler
from pytest_bpf.compile.dependencies import absent, headers_of
from pytest_bpf.compile.diagnostics import failure, missing_header, relative_to_here
from pytest_bpf.compile.entries import Entry, recall, remember
from pytest_bpf.compile.headers import changed_since
from pytest_bpf.compile.preamble import find_preamble
from pytest_bpf.compile.process import CompilerRun, run
from pytest_bpf.compile.sources import Source, read_source
from pytest_bpf.errors import UnavailableError
from pytest_bpf.errors.arguments import checked
from pytest_bpf.kernel.btf import vmlinux_h

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

REMOTE: list[Callable[[str, dict[str, Any]], CompiledObject | None]] = []
"""Compilers of other machines, the newest last: a guest asks its host to compile."""


@dataclass(frozen=True)
class CompiledObject:
    """An object file and how it came to be.

    ``object`` is in the cache: read it, do not change it. ``source`` is the absolute path of the C
    file, ``seconds`` what this call took, ``cached`` whether no compiler ran, and ``warnings`` what
    the compiler printed when it did (empty when it had nothing to say).
    """

    object: Path
    source: Path
    seconds: float
    cached: bool
    warnings: str


@checked
def compile_source(
    source: os.PathLike[str] | str,
    *,
    name: str | None = None,
    include_dirs: Iterable[os.PathLike[str] | str] = (),
    defines: Mapping[str, str | int | None] | None = None,
    flags: Sequence[str] = (),
    compiler: Compiler | str | None = None,
    btf: Path = vmlinux_h.RUNNING,
    cache: Cache | None = None,
    timeout: float = 120.0,
) -> CompiledObject:
    """Compile ``source`` for BPF, unless the cache has it, and return the object.

    ``source`` is a file, or C text when it is a `str` with a newline; ``name`` is what text and
    object are called. ``include_dirs`` are searched before the system's folders, ``defines`` are
    macros (None defines without a value), ``flags`` go to the compiler after our own. ``compiler``
    is a `Compiler`, or a name or path as for `find_compiler`. A
    ``#include "vmlinux.h"`` finds the user's own, or else one made from ``btf``. ``timeout`` is in
    seconds.

    Raises `CompileError` when the source is missing or wrong (``output`` is all the compiler
    printed), and `UnavailableError` when there is no compiler, no BTF to make vmlinux.h of, or no
    libbpf-dev.
    """
    start = time.perf_counter()
    if isinstance(compiler, str):
        compiler = find_compiler(compiler, cache=cache)
    if REMOTE and cache is None and btf == vmlinux_h.RUNNING:
        arguments: dict[str, Any] = {"name": name, "include_dirs": tuple(include_dirs)}
        arguments |= {"defines": defines, "flags": tuple(flags), "compiler": compiler}
        if answer := REMOTE[-1](os.fspath(source), arguments):
            return answer
    cache = cache or open_cache()
    source_file = read_source(source, name, cache)
    task = plan(
        source_file,
        compiler or find_compiler(cache=cache),
        include_dirs=include_dirs,
        defines=defines or {},
        flags=flags,
    )
    header = _vmlinux_path(cache, btf)
    entry = _recall(cache, task, header)
    cached = entry is not None
    if entry is None:
        with cache.lock(task.key[:2]):
            entry = _recall(cache, task, header)
            cached = entry is not None
            entry = entry or _compile(cache, task, header, btf, timeout)
        cache.prune_daily()
    warnings = _display(entry.warnings, source_file)
    return CompiledObject(
        entry.path(cache), source_file.path, time.perf_counter() - start, cached, warnings
    )


def compile_command(
    source: Path, compiler: Compiler, *, include_dirs: Iterable[Path] = ()
) -> tuple[str, ...]:
    """Return the command that compiles a source, without its input and output.

    It finds ``vmlinux.h``, which is made when it is not there yet. Raises as `compile_source`.
    """
    cache = open_cache()
    header = _vmlinux_path(cache, vmlinux_h.RUNNING)
    if header is None or not header.exists():
        _make_vmlinux_h(cache, header, vmlinux_h.RUNNING)
    assert header is not None
    task = plan(
        read_source(source, None, cache), compiler, include_dirs=include_dirs, defines={}, flags=()
    )
    return (*task.arguments, "-idirafter", str(header.parent))


def _vmlinux_path(cache: Cache, btf: Path) -> Path | None:
    """Return where vmlinux.h of ``btf`` is or will be, or None when there is no such BTF."""
    try:
        return cache.folder / f"vmlinux-{vmlinux_h.identity(btf)[:16]}" / "vmlinux.h"
    except UnavailableError:
        return None


def _recall(cache: Cache, task: Task, header: Path | None) -> Entry | None:
    """Look for an object of any kernel first, then for one made with this kernel's vmlinux.h."""
    entry = recall(cache, task.key)
    return entry or (recall(cache, _kernel_key(task, header)) if header else None)


def _kernel_key(task: Task, header: Path) -> str:
    return digest(task.key, header.parent.name)


def _compile(cache: Cache, task: Task, header: Path | None, btf: Path, timeout: float) -> Entry:
    """Compile, keep the object, and remember it unless a header changed meanwhile."""
    extra = ("-idirafter", str(header.parent)) if header else ()
    with cache.workspace() as folder:
        start_ns = folder.stat().st_mtime_ns
        compiler_run = _run(task, extra, folder, timeout)
        if compiler_run.code and missing_header(compiler_run.output) == "vmlinux.h":
            _make_vmlinux_h(cache, header, btf)
            compiler_run = run(task, extra, folder, timeout)
        _raise_for(compiler_run, task)
        files = compiler_run.files()
        checksum = sha256(compiler_run.object.read_bytes()).hexdigest()
        name = f"{task.source.label}-{checksum[:16]}.bpf.o"
        cache.adopt(compiler_run.object, "objects", name)
    headers = headers_of(cache, task, files)
    entry = Entry(name, checksum, compiler_run.output, headers, absent(cache, task, headers))
    if _settled(cache, task, entry, start_ns):
        of_kernel = header is not None and str(header) in files
        remember(cache, _kernel_key(task, header) if header and of_kernel else task.key, entry)
    return entry


def _run(task: Task, extra: Sequence[str], folder: Path, timeout: float) -> CompilerRun:
    """Compile behind the precompiled beginning of the source, where there is one that helps."""
    preamble = find_preamble(task, extra, timeout)
    if preamble is None:
        return run(task, extra, folder, timeout)
    behind = run(task, (*extra, *preamble.arguments), folder, timeout)
    if not behind.code and not behind.output:
        return replace(behind, made=(str(preamble.text),))
    whole = run(task, extra, folder, timeout)
    if not whole.code and not whole.output:
        preamble.drop()
    return whole


def _make_vmlinux_h(cache: Cache, header: Path | None, btf: Path) -> None:
    """Make vmlinux.h in the cache, once; without BTF, raise what there is to say about that."""
    if header is None:
        vmlinux_h.identity(btf)
        return
    with cache.lock("vmlinux"), cache.workspace() as folder:
        if not cache.trusts(header):
            vmlinux_h.write(btf, folder / header.name)
            cache.adopt(folder / header.name, header.parent.name, header.name)


def _raise_for(compiler_run: CompilerRun, task: Task) -> None:
    if compiler_run.code or not compiler_run.object.exists():
        output = _display(compiler_run.output, task.source)
        compiler, source = str(task.compiler), task.source.display_name
        content = task.source.content.decode(errors="replace")
        code = compiler_run.code
        raise failure(output, code, compiler=compiler, source=source, content=content)


def _settled(cache: Cache, task: Task, entry: Entry, start_ns: int) -> bool:
    """Say whether every file is what the compiler read: not written since ``start_ns``."""
    mine = f"{cache.folder}/"
    others = (header for header in entry.headers if not header.path.startswith(mine))
    if any(changed_since(header, start_ns) for header in others):
        return False
    source = task.source
    return source.path.exists() and source.path.read_bytes() == source.content


def _display(output: str, source: Source) -> str:
    return relative_to_here()(output.replace(str(source.path), source.display_name))

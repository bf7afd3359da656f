"""Compiling what a test names: paths from its folder, C text, several sources as one object."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Union

from pytest_bpf.cache import open_cache
from pytest_bpf.compile import trees
from pytest_bpf.compile.build import CompiledObject, compile_source
from pytest_bpf.compile.compilers import Compiler, find_compiler
from pytest_bpf.compile.diagnostics import warnings_in
from pytest_bpf.compile.linking import link
from pytest_bpf.compile.project import BuildCommand, project_flags
from pytest_bpf.errors import BpfError, CompileError, CompilerWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.compile.trees import Tree

Source = Union[str, "os.PathLike[str]"]
"""A path, or C text: a `str` with a newline; or ``git:REVISION:PATH``, a file as it was."""

REVISION = "git:"


@dataclass(frozen=True)
class CompileOptions:
    """What a project compiles with: a compiler (None finds one), flags, folders, macros.

    ``build`` is the project's own command, which is run instead, and ``database`` its
    ``compile_commands.json``, whose flags are added.
    """

    compiler: Compiler | str | None = None
    cflags: tuple[str, ...] = ()
    include_dirs: tuple[Path, ...] = ()
    defines: Mapping[str, str | int | None] = field(default_factory=dict)
    build: BuildCommand | None = None
    database: Path | None = None


@dataclass(frozen=True)
class Compilation:
    """What one call adds to the project's `CompileOptions`; ``name`` is what text is called."""

    name: str | None = None
    include_dirs: Iterable[str | os.PathLike[str]] = ()
    defines: Mapping[str, str | int | None] | None = None
    cflags: Sequence[str] = ()
    compiler: Compiler | str | None = None

    @property
    def label(self) -> str:
        """What tells it from other calls with the same source: its defines and flags."""
        macros = (name if value is None else f"{name}={value}" for name, value in self._macros())
        return " ".join([*macros, *self.cflags])

    def _macros(self) -> Iterable[tuple[str, str | int | None]]:
        return (self.defines or {}).items()


class SourceCompiler:
    """Compiles sources as their project does.

    ``folder`` is where relative paths start (None: the current folder). ``compile_options`` returns
    how a source is compiled, ``on_compile`` is called with every object that was compiled, and
    ``earlier`` stands for the files that are below its root. ``compilers`` are those it was told to
    use.
    """

    def __init__(
        self,
        folder: Path | None,
        compile_options: Callable[[str | os.PathLike[str]], CompileOptions],
        on_compile: Callable[[CompiledObject], object],
        earlier: Tree | None,
    ) -> None:
        self._folder = folder
        self._compile_options = compile_options
        self._on_compile = on_compile
        self._earlier = earlier
        self.compilers: set[Compiler] = set()

    def compile(
        self, source: Source | Sequence[Source], compilation: Compilation, *, quiet: bool = False
    ) -> CompiledObject:
        """Compile a source or text, or compile and link several; raises `CompileError`.

        ``quiet`` leaves ``on_compile`` out: for one more build of a source.
        """
        _check(compilation)
        compiler, source = self.of_revision(source)
        if compiler is not self:
            return compiler.compile(source, compilation, quiet=quiet)
        if not isinstance(source, (str, os.PathLike)):
            return self._link(source, compilation)
        options = self._compile_options(source)
        if options.build and not is_text(source):
            compiled = _build(options.build, self.path(source), compilation)
        else:
            compiled = self._compile(source, options, compilation)
        if not quiet:
            self._on_compile(compiled)
        return compiled

    def of_revision(
        self, source: Source | Sequence[Source]
    ) -> tuple[SourceCompiler, Source | Sequence[Source]]:
        """Return what compiles a source, and its path: of ``git:REVISION:PATH`` as it was then.

        Raises `CompileError` for a revision that there is not.
        """
        if not isinstance(source, str) or not source.startswith(REVISION) or is_text(source):
            return self, source
        revision, _, path = source[len(REVISION) :].partition(":")
        if not revision or not path:
            raise CompileError(f"{source}: a source of a revision is git:REVISION:PATH")
        try:
            tree = trees.of_revision(revision, self._folder or Path.cwd())
        except BpfError as error:
            raise CompileError(f"{source}: there is no revision {revision!r}: {error}") from None
        of_tree = SourceCompiler(self._folder, self._compile_options, self._on_compile, tree)
        of_tree.compilers = self.compilers
        return of_tree, path

    def preprocess(self, source: Source, compilation: Compilation) -> bytes:
        """Return a source with all that it includes, and no macro left."""
        flags = (*compilation.cflags, "-E")
        compiled = self.compile(source, replace(compilation, cflags=flags), quiet=True)
        return compiled.object.read_bytes()

    def compile_line(self, source: Path, compilation: Compilation, line: str) -> bytes:
        """Return the object of a source with one more line after it."""
        text = f'#include "{source}"\n{line}\n'
        compiled = self.compile(text, replace(compilation, name=f"types-of-{source.name}"))
        return compiled.object.read_bytes()

    def read(self, source: str | os.PathLike[str], name: str | None) -> tuple[Path, str]:
        """Return what a source is called, and its text; raises `CompileError`."""
        if is_text(source):
            return Path(name or "bcc.c"), str(source)
        path = self.path(source)
        try:
            return path, path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise CompileError(f"{path}: cannot be read: {error.strerror}") from None

    def path(self, path: str | os.PathLike[str]) -> Path:
        """Return where a source or object is, or was in the earlier tree."""
        place = self.here(path)
        return self._earlier.file(place) if self._earlier else place

    def folders(
        self,
        folders: Iterable[str | os.PathLike[str]],
        source: str | os.PathLike[str] | None = None,
    ) -> tuple[Path, ...]:
        """Return where headers are sought; ``source`` may include those beside it, as they are."""
        paths = [self.here(folder) for folder in folders]
        if self._earlier is None:
            return tuple(paths)
        if source is not None and not is_text(source):
            paths.append(self.here(source).parent)
        return tuple(place for path in paths for place in self._earlier.folders(path))

    def here(self, path: str | os.PathLike[str]) -> Path:
        """Return a path from the folder in which relative ones start."""
        return (self._folder or Path.cwd()) / path

    def _compile(
        self, source: Source, options: CompileOptions, compilation: Compilation
    ) -> CompiledObject:
        compiler = compilation.compiler or options.compiler
        if isinstance(compiler, str):
            compiler = find_compiler(compiler)
        if compiler:
            self.compilers.add(compiler)
        earlier_flags = self._earlier.flags if self._earlier else ()
        flags = (*options.cflags, *compilation.cflags, *earlier_flags)
        if options.database and not is_text(source):
            flags = (*project_flags(options.database, self.here(source)), *flags)
        folders = [*compilation.include_dirs, *options.include_dirs]
        return compile_source(
            source if is_text(source) else self.path(source),
            name=compilation.name,
            include_dirs=self.folders(folders, source=source),
            defines={**options.defines, **(compilation.defines or {})},
            flags=flags,
            compiler=compiler,
        )

    def _link(self, sources: Sequence[Source], compilation: Compilation) -> CompiledObject:
        """Compile those of several that are sources, and link all."""
        if not list(sources):
            raise CompileError("there is nothing to link: the list of sources is empty")
        start = time.perf_counter()
        files, parts = [], []
        for source in sources:
            if is_source(source):
                parts.append(self.compile(source, compilation))
                files.append(parts[-1].object)
            else:
                files.append(self.path(source))
        first = parts[0].source if parts else files[0]
        label = compilation.name or first.name.partition(".")[0]
        return CompiledObject(
            link(files, label, open_cache()),
            first,
            time.perf_counter() - start,
            all(part.cached for part in parts),
            "".join(part.warnings for part in parts),
        )


def _check(compilation: Compilation) -> None:
    """Raise `CompileError` for what has the wrong shape: text is a sequence of letters, too."""
    for name, example in (("cflags", "['-O2']"), ("include_dirs", "['include']")):
        value = getattr(compilation, name)
        if isinstance(value, (str, os.PathLike)) or not isinstance(value, Iterable):
            raise CompileError(f"{name}={value!r}: pass a list, as in {name}={example}")
    if not isinstance(compilation.defines, (Mapping, type(None))):
        raise CompileError(
            f"defines={compilation.defines!r}: pass a dict, as in defines={{'SIZE': 4}}"
        )
    if not isinstance(compilation.compiler, (str, Compiler, type(None))):
        raise CompileError(
            f"compiler={compilation.compiler!r}: pass a name or path, as in 'clang-18', or a "
            "Compiler"
        )
    if not isinstance(compilation.name, (str, type(None))):
        raise CompileError(f"name={compilation.name!r}: pass text")


def is_source(source: Source) -> bool:
    """Say whether ``source`` is to be compiled, rather than an object."""
    return is_text(source) or Path(source).suffix == ".c"


def is_text(source: str | os.PathLike[str]) -> bool:
    """Say whether ``source`` is C text rather than a path."""
    return isinstance(source, str) and "\n" in source


def _build(build: BuildCommand, path: Path, compilation: Compilation) -> CompiledObject:
    """Build by the project's command, whose flags are its own."""
    names = ("include_dirs", "defines", "cflags")
    if extra := [name for name in names if getattr(compilation, name)]:
        raise CompileError(
            f"{path}: {', '.join(extra)}: the project's own command compiles it "
            "(bpf_build_command); choose such things there"
        )
    return build.run(path)


def show_warnings(compilation: CompiledObject) -> None:
    """Issue the compiler's warnings as Python's, each with its file and line."""
    for warning in warnings_in(compilation.warnings):
        message = CompilerWarning(warning.text)
        warnings.warn_explicit(message, None, warning.file or str(compilation.source), warning.line)

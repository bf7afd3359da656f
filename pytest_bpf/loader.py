"""From a source or an object file to a loaded object, and everything gone at the end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.compile import Compiled, Compiler, compile_source
from pytest_bpf.errors import CompileError
from pytest_bpf.objects import Object
from pytest_bpf.objects.search import find_map, find_program

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_bpf.compile.earlier import Tree
    from pytest_bpf.objects import Link, Map, Program


@dataclass(frozen=True)
class Choices:
    """What a project compiles with: a compiler (None finds one), flags, folders, macros."""

    compiler: Compiler | None = None
    cflags: tuple[str, ...] = ()
    include_dirs: tuple[Path, ...] = ()
    defines: Mapping[str, str | int | None] = field(default_factory=dict)


class Loader:
    """Loads objects and owns them: `close` detaches and unloads everything it loaded.

    >>> with Loader() as bpf:  # doctest: +SKIP
    ...     obj = bpf.load("count.bpf.c")
    ...     obj.attach()

    ``folder`` is where relative paths start; ``choices`` tells how a source is compiled, and
    ``loaded`` is called with every object once it is in the kernel, ``closing`` just before it
    leaves. ``earlier`` stands for the files that are below its root. ``objects`` are those it
    loaded, ``compilers`` those it was told to use.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        choices: Callable[[str | os.PathLike[str]], Choices] = lambda _: Choices(),
        loaded: Callable[[Object], object] = lambda _: None,
        closing: Callable[[Object], object] = lambda _: None,
        earlier: Tree | None = None,
    ) -> None:
        self._folder = folder
        self._choices = choices
        self._loaded = loaded
        self._closing = closing
        self._earlier = earlier
        self.objects: list[Object] = []
        self.compilers: set[Compiler] = set()
        self._found: list[Program | Map | Link] = []

    def load(
        self,
        source: str | os.PathLike[str],
        *,
        name: str | None = None,
        include_dirs: Iterable[str | os.PathLike[str]] = (),
        defines: Mapping[str, str | int | None] | None = None,
        cflags: Sequence[str] = (),
        globals: Mapping[str, Any] | None = None,  # noqa: A002 (as C calls them)
        max_entries: Mapping[str, int] | None = None,
        programs: Iterable[str] | None = None,
        maps: Mapping[str, Map] | None = None,
        attach_to: Mapping[str, tuple[Program, str]] | None = None,
    ) -> Object:
        """Compile (when it is a source), load, and return the object.

        ``source`` is the path of a ``.c`` source or of an object, or C text (a `str` with a
        newline), called ``name``. ``include_dirs``, ``defines`` and ``cflags`` are for the
        compiler and add to the project's own; the rest is explained at `Object.load`.

        Raises `CompileError`, `LoadError`, `VerifierError`, `UnknownNameError`, `ValueTypeError`,
        and `UnavailableError` for what this environment lacks.
        """
        built = None
        if is_text(source) or Path(source).suffix == ".c":
            built = self.compile(
                source, name=name, include_dirs=include_dirs, defines=defines, cflags=cflags
            )
        obj = Object.load(
            built.object if built else self._path(source),
            globals=globals,
            max_entries=max_entries,
            programs=programs,
            maps=maps,
            attach_to=attach_to,
            trusted=built is not None,
            source=built.source if built else None,
        )
        self.objects.append(obj)
        self._loaded(obj)
        return obj

    def load_bcc(
        self,
        source: str | os.PathLike[str],
        *,
        name: str | None = None,
        sections: Mapping[str, str] | None = None,
        include_dirs: Iterable[str | os.PathLike[str]] = (),
        defines: Mapping[str, str | int | None] | None = None,
        cflags: Sequence[str] = (),
        headers: str | os.PathLike[str] | None = None,
    ) -> Object:
        """Compile and load a source in BCC's dialect of C, by BCC, and return the object.

        ``source`` is a path, or text (a `str` with a newline), called ``name``. ``sections`` says,
        in the words of ELF sections, what functions are: ``{"drop": "xdp", "on_open":
        "kprobe/do_sys_open"}``; those named ``kprobe__x``, ``tracepoint__group__x`` and so on
        say it themselves, others by the type of their argument. Nothing is attached yet.

        ``headers`` is a folder of kernel headers, or ``"debian"`` for the distribution's; without
        it they are the running kernel's. Raises `UnavailableError` without BCC or headers,
        `CompileError`, `VerifierError`, `LoadError` and `UnknownNameError`.
        """
        from pytest_bpf.bcc import load_bcc  # noqa: PLC0415 (nobody else needs it)

        folders = [f"-I{folder}" for folder in self._folders(include_dirs)]
        macros = [
            f"-D{macro}" if value is None else f"-D{macro}={value}"
            for macro, value in (defines or {}).items()
        ]
        path, text = self._read(source, name)
        obj = load_bcc(
            text,
            path,
            given=dict(sections or {}),
            cflags=[*folders, *macros, *cflags],
            headers=headers,
        )
        self.objects.append(obj)
        self._loaded(obj)
        return obj

    def find_program(
        self,
        name: str | None = None,
        *,
        id: int | None = None,  # noqa: A002 (the kernel's word)
        tag: str | None = None,
        pinned: str | os.PathLike[str] | None = None,
        pid: int | None = None,
    ) -> Program:
        """Return a program that is in the kernel, whoever loaded it: it is read, never unloaded.

        All that is given must hold; see `pytest_bpf.objects.search.find_program`.
        """
        program = find_program(name, id=id, tag=tag, pinned=pinned, pid=pid)
        self._found.append(program)
        program.attached = self._found.append
        return program

    def find_map(
        self,
        name: str | None = None,
        *,
        id: int | None = None,  # noqa: A002 (the kernel's word)
        pinned: str | os.PathLike[str] | None = None,
        pid: int | None = None,
    ) -> Map:
        """Return a map that is in the kernel, whoever made it; see `find_program`."""
        found = find_map(name, id=id, pinned=pinned, pid=pid)
        self._found.append(found)
        return found

    def compile(
        self,
        source: str | os.PathLike[str],
        *,
        name: str | None = None,
        include_dirs: Iterable[str | os.PathLike[str]] = (),
        defines: Mapping[str, str | int | None] | None = None,
        cflags: Sequence[str] = (),
    ) -> Compiled:
        """Compile a source or text without loading it; see `load`."""
        chosen = self._choices(source)
        if chosen.compiler:
            self.compilers.add(chosen.compiler)
        return compile_source(
            source if is_text(source) else self._path(source),
            name=name,
            include_dirs=self._folders([*include_dirs, *chosen.include_dirs], source=source),
            defines={**chosen.defines, **(defines or {})},
            flags=(*chosen.cflags, *cflags, *(self._earlier.flags if self._earlier else ())),
            compiler=chosen.compiler,
        )

    def close(self) -> None:
        """Close every object that was loaded, the last one first."""
        with ExitStack() as last_first:
            for obj in self.objects:
                last_first.callback(obj.close)
                if not obj.closed:
                    last_first.callback(self._closing, obj)
            for found in self._found:
                last_first.callback(found.close)
            self.objects, self._found = [], []

    def __enter__(self) -> Loader:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, source: str | os.PathLike[str], name: str | None) -> tuple[Path, str]:
        """Return what a source is called, and its text."""
        if is_text(source):
            return Path(name or "bcc.c"), str(source)
        path = self._path(source)
        try:
            return path, path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise CompileError(f"{path}: cannot be read: {error.strerror}") from None

    def _path(self, path: str | os.PathLike[str]) -> Path:
        found = self._here(path)
        return self._earlier.file(found) if self._earlier else found

    def _folders(
        self,
        folders: Iterable[str | os.PathLike[str]],
        source: str | os.PathLike[str] | None = None,
    ) -> tuple[Path, ...]:
        """Return where headers are sought; ``source`` may include those beside it, as they are."""
        found = [self._here(folder) for folder in folders]
        if self._earlier is None:
            return tuple(found)
        if source is not None and not is_text(source):
            found.append(self._here(source).parent)
        return tuple(place for folder in found for place in self._earlier.folders(folder))

    def _here(self, path: str | os.PathLike[str]) -> Path:
        return (self._folder or Path.cwd()) / path


def is_text(source: str | os.PathLike[str]) -> bool:
    """Say whether ``source`` is C text rather than a path."""
    return isinstance(source, str) and "\n" in source

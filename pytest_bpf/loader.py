"""From a source or an object file to a loaded object, and everything gone at the end."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pytest_bpf.compile import Compilation, CompileOptions, SourceCompiler, is_source, show_warnings
from pytest_bpf.compile.command import define
from pytest_bpf.errors import LoadError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.objects import query
from pytest_bpf.objects.loading.open_object import OpenObject, open_file
from pytest_bpf.objects.loading.set_up import SetUp, btf_file, check_kconfig, kconfig_text
from pytest_bpf.objects.maps.new_map import MapTypes, new_map
from pytest_bpf.objects.search.search import find_map, find_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from pytest_bpf.compile import CompiledObject, Compiler
    from pytest_bpf.compile.source_compiler import Source
    from pytest_bpf.compile.trees import Tree
    from pytest_bpf.coverage.cost_recorder import CostRecorder
    from pytest_bpf.coverage.recorder import Recorder
    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects import Attachment, Link, Map, Object, Program
    from pytest_bpf.objects.loading.settings import OtherBuild


@checked_methods
class Loader:
    """Loads objects and owns them: `close` detaches and unloads everything it loaded.

    >>> with Loader() as bpf:  # doctest: +SKIP
    ...     obj = bpf.load("count.bpf.c")
    ...     obj.attach()

    ``folder`` is where relative paths start. ``compile_options`` returns how a source is compiled.
    ``on_load`` is called with every object that was loaded, ``on_close`` with every object that is
    about to be closed, ``on_compile`` with every object that was compiled. ``earlier`` stands for
    the files that are below its root. ``lines`` counts the lines of what is compiled here.
    ``objects`` are those it loaded.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        compile_options: Callable[[str | os.PathLike[str]], CompileOptions] = lambda _: (
            CompileOptions()
        ),
        on_load: Callable[[Object], object] = lambda _: None,
        on_close: Callable[[Object], object] = lambda _: None,
        on_compile: Callable[[CompiledObject], object] = show_warnings,
        earlier: Tree | None = None,
        lines: Recorder | CostRecorder | None = None,
    ) -> None:
        self._on_load = on_load
        self._on_close = on_close
        self._compiler = SourceCompiler(folder, compile_options, on_compile, earlier)
        self._lines = lines
        self.objects: list[Object] = []
        self._others: list[Program | Map | Link] = []
        self._open_objects: WeakSet[OpenObject] = WeakSet()
        self._pins: PinDirectory | None = None

    @property
    def compilers(self) -> set[Compiler]:
        """The compilers it was told to use."""
        return self._compiler.compilers

    def open(
        self,
        source: Source | Sequence[Source],
        *,
        name: str | None = None,
        include_dirs: Iterable[str | os.PathLike[str]] = (),
        defines: Mapping[str, str | int | None] | None = None,
        cflags: Sequence[str] = (),
        compiler: Compiler | str | None = None,
        kconfig: Mapping[str, Any] | str | None = None,
        btf_path: str | os.PathLike[str] | None = None,
    ) -> OpenObject:
        """Compile (when it is a source), and return what the object holds, ready to be set up.

        Nothing is in the kernel before `OpenObject.load`: this needs neither privilege nor a
        kernel that could load the object. ``source``, ``name`` and what the compiler takes are as
        in `load`. ``kconfig`` stands for the kernel's configuration, as text or as a dict
        (``{"CONFIG_HZ": 250}``); ``btf_path`` is a file with the types that CO-RE relocates by, in
        place of the running kernel's.

        Raises `CompileError`, `LoadError`, and `UnavailableError` without compiler or libbpf.
        """
        return self._open(
            source,
            compilation=Compilation(name, include_dirs, defines, cflags, compiler),
            kconfig=kconfig,
            btf_path=btf_path,
        )

    def load(
        self,
        source: Source | Sequence[Source],
        *,
        name: str | None = None,
        include_dirs: Iterable[str | os.PathLike[str]] = (),
        defines: Mapping[str, str | int | None] | None = None,
        cflags: Sequence[str] = (),
        compiler: Compiler | str | None = None,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 (as C calls them)
        programs: Iterable[str] | None = None,
        skip: Iterable[str] = (),
        types: Mapping[str, str] | None = None,
        attach_to: Mapping[str, Any] | None = None,
        flags: Mapping[str, int] | None = None,
        log_level: Mapping[str, int] | int | None = None,
        max_entries: Mapping[str, int] | None = None,
        value_size: Mapping[str, int] | None = None,
        maps: Mapping[str, Map] | None = None,
        pins: Mapping[str, str | os.PathLike[str] | None] | None = None,
        kconfig: Mapping[str, Any] | str | None = None,
        btf_path: str | os.PathLike[str] | None = None,
    ) -> Object:
        """Compile (when it is a source), load, and return the object.

        ``source`` is the path of a ``.c`` source or of an object, or C text (a `str` with a
        newline), called ``name``. Several, as a list, are compiled and linked into one object by
        libbpf's linker; static libraries (``.a``) may be among them. ``include_dirs``, ``defines``
        and ``cflags`` are for the compiler and add to the project's own; ``compiler`` is used
        instead of the project's. The rest is set on the `OpenObject`, by name:

        ``globals`` variables, also those in ``.rodata``; ``programs`` and ``skip`` names or
        patterns (``"on_*"``) of the programs to load and to leave out; ``types`` the type of a
        program whose section does not say it; ``attach_to`` what a program attaches to: a kernel's
        or module's function, ``(program, "function")``, or what `Program.attach` takes; ``flags``
        those of a program or map; ``log_level`` of one program or of all; ``max_entries`` and
        ``value_size`` of maps; ``maps`` maps that take the place of this object's; ``pins`` where
        maps are pinned. ``kconfig`` and ``btf_path`` are explained at `open`.

        Raises `CompileError`, `LoadError`, `VerifierError`, `UnknownNameError`, `ValueTypeError`,
        and `UnavailableError` for what this environment lacks.
        """
        setup = SetUp(
            globals=globals or {},
            programs=programs,
            skip=skip,
            types=types or {},
            attach_to=attach_to or {},
            flags=flags or {},
            log_level=log_level,
            max_entries=max_entries or {},
            value_size=value_size or {},
            maps=maps or {},
            pins=pins or {},
        )
        open_object = self._open(
            source,
            set_up=setup.apply,
            compilation=Compilation(name, include_dirs, defines, cflags, compiler),
            kconfig=kconfig,
            btf_path=btf_path,
        )
        with open_object:
            setup.apply(open_object)
            return open_object.load()

    @property
    def pins(self) -> Path:
        """The directory where maps with ``LIBBPF_PIN_BY_NAME`` are pinned until `close`.

        It is private to this loader, and so to one test; processes that the test starts open
        ``pins / name``. Raises `UnavailableError` where no bpf file system can be had.
        """
        if self._pins is None:
            self._pins = PinDirectory()
        return self._pins.path

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

        folders = [f"-I{folder}" for folder in self._compiler.folders(include_dirs)]
        macros = [define(macro, value) for macro, value in (defines or {}).items()]
        path, text = self._compiler.read(source, name)
        obj = load_bcc(
            text,
            path,
            given=dict(sections or {}),
            cflags=[*folders, *macros, *cflags],
            headers=headers,
        )
        self._own(obj)
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

        All that is given must hold; see `pytest_bpf.objects.search.search.find_program`.
        """
        program = find_program(name, id=id, tag=tag, pinned=pinned, pid=pid)
        self._others.append(program)
        program.keep_link = self._others.append
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
        map_ = find_map(name, id=id, pinned=pinned, pid=pid)
        self._others.append(map_)
        return map_

    def create_map(
        self,
        kind: str,
        *,
        key: str | Type | None = None,
        value: str | Type | None = None,
        max_entries: int = 0,
        flags: int = 0,
        inner: Map | None = None,
        name: str | None = None,
        types: Object | None = None,
    ) -> Map:
        """Create a map that no object declares; it is closed with the loader.

        ``kind`` is libbpf's name of the type (``"lru_hash"``). ``key`` and ``value`` are C types:
        base types and arrays of them (``"u32"``, ``"char[16]"``), or types of ``types`` or else of
        the objects that were loaded, the last one first (``"struct stats"``). ``max_entries`` is a
        number of elements, for ring buffers of bytes; ``flags`` are ``BPF_F_*``, of which those
        that the kind needs are set. ``inner`` is a map like those that a map of maps holds.

        Raises `MapError` for what this kind of map does not take, `UnknownNameError` for a kind or
        a type that there is not, `ValueTypeError` for what is no type, and `UnavailableError` for
        what this kernel or user cannot have.
        """
        owners = [types] if types is not None else self.objects
        map_ = new_map(
            kind,
            MapTypes(key, value, [owner.types for owner in reversed(owners)]),
            max_entries=max_entries,
            flags=flags,
            inner=inner,
            name=name or f"{kind}_map",
        )
        self._others.append(map_)
        return map_

    def query(self, target: Any, hook: str | None = None) -> list[Attachment]:
        """Return what is attached to a target, in order: see `pytest_bpf.query`."""
        return query(target, hook)

    def compile(
        self,
        source: Source | Sequence[Source],
        *,
        name: str | None = None,
        include_dirs: Iterable[str | os.PathLike[str]] = (),
        defines: Mapping[str, str | int | None] | None = None,
        cflags: Sequence[str] = (),
        compiler: Compiler | str | None = None,
    ) -> CompiledObject:
        """Compile a source or text, or compile and link several, without loading; see `load`."""
        compilation = Compilation(name, include_dirs, defines, cflags, compiler)
        return self._compiler.compile(source, compilation)

    @property
    def others(self) -> tuple[Program | Map | Link, ...]:
        """What it found or created that is of no object: programs, maps, and links of these."""
        return tuple(self._others)

    def close(self) -> None:
        """Close every object that was opened or loaded, the last one first."""
        with ExitStack() as last_first:
            if self._pins is not None:
                last_first.callback(self._pins.close)
            for open_object in list(self._open_objects):
                last_first.callback(open_object.close)
            for obj in self.objects:
                last_first.callback(obj.close)
                if not obj.closed:
                    last_first.callback(self._on_close, obj)
            for other in self._others:
                last_first.callback(other.close)
            self.objects, self._others, self._pins = [], [], None

    def __enter__(self) -> Loader:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(
        self,
        source: Source | Sequence[Source],
        *,
        set_up: Callable[[OpenObject], object] | None = None,
        compilation: Compilation,
        kconfig: Mapping[str, Any] | str | None,
        btf_path: str | os.PathLike[str] | None,
    ) -> OpenObject:
        """Compile a source with the arguments ``compilation``, and open it."""
        compiled = None
        compiler, source = self._compiler.of_revision(source)
        if isinstance(source, (str, os.PathLike)) and not is_source(source):
            file = compiler.path(source)
        else:
            compiled = compiler.compile(source, compilation)
            file = compiled.object
        parts = [source] if isinstance(source, (str, os.PathLike)) else source

        def own(obj: Object) -> None:
            if compiled is not None and len(parts) == 1:
                obj.types.compile_line = partial(
                    compiler.compile_line, compiled.source, compilation
                )
                obj.preprocess = partial(compiler.preprocess, parts[0], compilation)
            self._own(obj)

        open_object = open_file(
            file,
            source=compiled.source if compiled else None,
            kconfig=kconfig_text(kconfig),
            btf_path=btf_file(btf_path, compiler.here),
            trusted=all(map(is_source, parts)),
            set_up=set_up,
            pins=lambda: self.pins,
            on_load=own,
            other_build=self._counting_build(compiler, parts, compiled, compilation),
        )
        self._open_objects.add(open_object)
        check_kconfig(open_object, kconfig)
        return open_object

    def _counting_build(
        self,
        compiler: SourceCompiler,
        parts: Sequence[Source],
        compiled: CompiledObject | None,
        compilation: Compilation,
    ) -> OtherBuild | None:
        """Return the build of a source that counts its lines, when that is asked for."""
        if self._lines is None or compiled is None:
            return None
        if len(parts) > 1:
            self._lines.refuse(compiled.source, LoadError("several sources are linked into one"))
            return None

        def compile_with(flags: Sequence[str]) -> CompiledObject:
            counting = replace(compilation, cflags=(*compilation.cflags, *flags))
            return compiler.compile(parts[0], counting, quiet=True)

        return self._lines.counting_build(compiled.source, compile_with, compilation.label)

    def _own(self, obj: Object) -> None:
        self.objects.append(obj)
        if self._lines is not None and obj.recording is None:
            self._lines.count_instructions(obj)
        self._on_load(obj)

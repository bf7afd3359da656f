"""A BPF object: loaded, and closed with everything it made."""

from __future__ import annotations

from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import libbpf
from pytest_bpf.objects import elf
from pytest_bpf.objects.globals import Globals
from pytest_bpf.objects.link import Link
from pytest_bpf.objects.loaded import by_pointer
from pytest_bpf.objects.map import Map
from pytest_bpf.objects.names import Named
from pytest_bpf.objects.opening import Opened, internal, section
from pytest_bpf.objects.program import Program
from pytest_bpf.objects.quarantine import survive
from pytest_bpf.objects.setup import Setup

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping


class Object:
    """A loaded object with its ``programs``, ``maps``, ``globals`` and ``links`` by name."""

    def __init__(self, opened: Opened) -> None:
        """Take over what was loaded; `load` is the way to come by one."""
        self._opened = opened
        self._links: dict[str, Link] = {}
        self.path = opened.path
        where = opened.path.name
        maps = {name: self._map(name, at) for name, at in opened.created_maps().items()}
        hidden = {name for name, pointer in opened.maps.items() if internal(pointer)}
        variables = opened.btf.sections() if opened.btf else {}
        stored = {section(name): maps[name] for name in hidden & set(maps)}
        loaded = {name: self._program(name, at) for name, at in opened.loaded_programs().items()}
        self.programs: Mapping[str, Program] = Named("program", where, loaded)
        self.maps: Mapping[str, Map] = Named(
            "map", where, {name: made for name, made in maps.items() if name not in hidden}
        )
        self._everything: list[Program | Map] = [*loaded.values(), *maps.values()]
        self.globals = Globals(where, variables, stored)
        self.links: Mapping[str, Link] = Named("link", where, self._links)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 (as C calls them)
        max_entries: Mapping[str, int] | None = None,
        programs: Iterable[str] | None = None,
        maps: Mapping[str, Map] | None = None,
        attach_to: Mapping[str, tuple[Program, str]] | None = None,
        trusted: bool = False,
        source: Path | None = None,
    ) -> Object:
        """Load an object file.

        ``globals`` sets variables before the verifier sees them, ``max_entries`` resizes maps,
        ``programs`` names those to load (else all), ``maps`` puts the maps of another object in
        the place of this one's, ``attach_to`` names for ``freplace``, ``fentry`` and ``fexit``
        programs the loaded program and the function in it that they attach to. A ``trusted``
        object was compiled here, of ``source``; others are opened in a process of their own first.

        Raises `LoadError` (the file, a map, a relocation), `VerifierError` (a rejected program),
        `UnknownNameError`, `ValueTypeError`, and `UnavailableError` without privilege or libbpf.
        """
        file = Path(path)
        content = elf.read_object(file)
        setup = Setup(
            globals=dict(globals or {}),
            max_entries=dict(max_entries or {}),
            programs=_names(programs),
            maps=dict(maps or {}),
            attach_to=dict(attach_to or {}),
        )
        libbpf.library()
        if not trusted:
            what = (sha256(content).digest(), setup.outline)
            survive(file, what, lambda: Opened(file, content, setup).load())
        opened = Opened(source or file, content, setup)
        try:
            opened.load()
            return cls(opened)
        except BaseException:
            opened.close()
            raise

    def attach(self) -> None:
        """Attach every program whose section says where, and every struct_ops map.

        Raises `AttachError` when there is nothing of that kind, or one of them cannot be attached;
        the others stay attached.
        """
        if self.closed:
            raise AttachError(f"{self.path.name} is closed: there is nothing left to attach")
        ready = [program for program in self.programs.values() if program.auto_attachable]
        tables = [name for name, made in self.maps.items() if made.type == "struct_ops"]
        if not ready and not tables:
            needy = ", ".join(f"{p.name!r} ({p.type})" for p in self.programs.values())
            raise AttachError(
                f"{self.path.name}: no program's section says where to attach it; "
                f"attach each to its target: {needy or 'there is no program'}"
            )
        for program in ready:
            program.attach()
        for name in tables:
            self._attach_struct_ops(name)

    def close(self) -> None:
        """Detach and unload everything; a second time does nothing."""
        with ExitStack() as last_first:
            last_first.callback(self._opened.close)
            for made in self._everything:
                last_first.callback(made.close)
            last_first.callback(self.globals.close)
            for link in self._links.values():
                last_first.callback(link.detach)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._opened.pointer

    def __enter__(self) -> Object:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Object {self.path.name}{', closed' if self.closed else ''}>"

    def _map(self, name: str, pointer: int) -> Map:
        opened = self._opened
        key, value = opened.types[name]
        fd = libbpf.call("bpf_map__fd", pointer)
        return Map(fd, name, key=key, value=value, btf=opened.btf)

    def _program(self, name: str, pointer: int) -> Program:
        opened = self._opened
        return Program(
            by_pointer(pointer),
            context_type=opened.btf.first_parameter(name) if opened.btf else None,
            load_log=opened.log(name),
            whole_log=opened.whole_log,
            attached=self._keep,
        )

    def _keep(self, link: Link) -> None:
        name, again = link.program, 2
        while name in self._links:
            name, again = f"{link.program}#{again}", again + 1
        self._links[name] = link

    def _attach_struct_ops(self, name: str) -> None:
        try:
            pointer = libbpf.call("bpf_map__attach_struct_ops", self._opened.maps[name])
        except OSError as error:
            raise AttachError(
                f"struct_ops map {name!r} cannot be attached: {error.strerror}", error.errno or 0
            ) from None
        fd = libbpf.function("bpf_link__fd")(pointer)
        destroy = libbpf.function("bpf_link__destroy")
        self._keep(Link(name, "struct_ops", lambda: destroy(pointer), fd=fd))


def _names(programs: Iterable[str] | None) -> frozenset[str] | None:
    if programs is None:
        return None
    return frozenset({programs} if isinstance(programs, str) else programs)

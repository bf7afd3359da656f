"""A BPF object: loaded, and closed with everything it made."""

from __future__ import annotations

from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import libbpf
from pytest_bpf.objects import elf, parts
from pytest_bpf.objects.globals import Globals
from pytest_bpf.objects.link import Link
from pytest_bpf.objects.names import Named
from pytest_bpf.objects.opening import Opened
from pytest_bpf.objects.quarantine import survive
from pytest_bpf.objects.setup import Setup

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from pytest_bpf.objects.map import Map
    from pytest_bpf.objects.parts import Parts
    from pytest_bpf.objects.program import Program


class Object:
    """A loaded object with its ``programs``, ``maps``, ``globals`` and ``links`` by name.

    ``path`` is that of its source, where that is known, else of the object file; ``content`` is
    what the file held, empty where there was none (BCC).
    """

    def __init__(self, made: Parts, content: bytes = b"") -> None:
        """Take over what was loaded; `load` is the way to come by one."""
        self.content = content
        self._parts = made
        self._links: dict[str, Link] = {}
        self._closed = False
        self.path = made.path
        where = made.path.name
        self.programs: Mapping[str, Program] = Named("program", where, made.programs)
        self.maps: Mapping[str, Map] = Named("map", where, made.maps)
        self.globals = Globals(where, made.variables, made.stored)
        self.links: Mapping[str, Link] = Named("link", where, self._links)
        for program in self.programs.values():
            program.attached = self._keep

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
            return cls(parts.of(opened), content)
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
        self._closed, made = True, self._parts
        with ExitStack() as last_first:
            last_first.callback(made.release)
            for program in made.programs.values():
                last_first.callback(program.close)
            for held in (*made.maps.values(), *made.stored.values()):
                last_first.callback(held.close)
            last_first.callback(self.globals.close)
            for link in self._links.values():
                last_first.callback(link.detach)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def __enter__(self) -> Object:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Object {self.path.name}{', closed' if self.closed else ''}>"

    def _keep(self, link: Link) -> None:
        name, again = link.program, 2
        while name in self._links:
            name, again = f"{link.program}#{again}", again + 1
        self._links[name] = link

    def _attach_struct_ops(self, name: str) -> None:
        try:
            pointer = libbpf.call("bpf_map__attach_struct_ops", self._parts.pointers[name])
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

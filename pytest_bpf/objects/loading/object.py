"""A BPF object: loaded, and closed with everything it made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.maps.globals import Globals
from pytest_bpf.objects.names import NameMapping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_bpf.objects.loading.parts import Parts
    from pytest_bpf.objects.maps.map import Map
    from pytest_bpf.objects.programs.program import Program


@checked_methods
class Object:
    """A loaded object: its ``programs``, ``maps``, ``globals``, ``links`` and ``types`` by name.

    ``path`` is that of its source, where that is known, else of the object file; ``content`` is
    what the file held, empty where there was none (BCC).
    """

    def __init__(self, parts: Parts, content: bytes = b"") -> None:
        """Take over what was loaded: an `OpenObject` does that."""
        self.content = content
        self._parts = parts
        self._links: dict[str, Link] = {}
        self._closed = False
        self.recording: Any = None
        """What counts the lines of its programs; None when nothing does."""
        self.path = parts.path
        where = parts.path.name
        self.programs: Mapping[str, Program] = NameMapping("program", where, parts.programs)
        self.maps: Mapping[str, Map] = NameMapping("map", where, parts.maps, parts.stored)
        self.types = parts.types
        self.preprocess: Callable[[], bytes] | None = None
        """Returns the source as the preprocessor leaves it; None where it is not known."""
        self.globals = Globals(where, parts.variables, parts.stored)
        self.links: Mapping[str, Link] = NameMapping("link", where, self._links)
        for program in self.programs.values():
            program.keep_link = self._keep

    def attach(self, *names: str) -> None:
        """Attach every program whose section says where, and every struct_ops map.

        With ``names`` attach these programs and struct_ops maps alone, in that order. Raises
        `AttachError` when there is nothing of that kind, or one of them cannot be attached; the
        others stay attached. Raises `UnknownNameError` for a name that none of them has.
        """
        if self.closed:
            raise AttachError(f"{self.path.name} is closed: there is nothing left to attach")
        tables = [name for name, entry in self.maps.items() if entry.type == "struct_ops"]
        if names:
            self._attach_named(names, tables)
            return
        ready = [program for program in self.programs.values() if program.auto_attachable]
        if not ready and not tables:
            needy = ", ".join(f"{p.name!r} ({p.type})" for p in self.programs.values())
            raise AttachError(
                f"{self.path.name}: neither a section nor attach_to= says where to attach a "
                f"program; attach each to its target: {needy or 'there is no program'}"
            )
        for program in ready:
            program.attach()
        for name in tables:
            self._attach_struct_ops(name)

    def _attach_named(self, names: tuple[str, ...], tables: list[str]) -> None:
        programs = {name: self.programs[name] for name in names if name not in tables}
        for name in names:
            if name in programs:
                programs[name].attach()
            else:
                self._attach_struct_ops(name)

    def close(self) -> None:
        """Detach and unload everything; a second time does nothing."""
        self._closed, parts = True, self._parts
        with ExitStack() as last_first:
            last_first.callback(parts.release)
            for program in parts.programs.values():
                last_first.callback(program.close)
            for entry in (*parts.maps.values(), *parts.stored.values()):
                last_first.callback(entry.close)
            last_first.callback(self.globals.close)
            last_first.callback(self.types.close)
            if self.recording is not None:
                last_first.callback(self.recording.close)
                self.recording = None
            for link in self._links.values():
                last_first.callback(link.close)

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

"""An object that is open and not loaded: what it holds, and what can be set before the load."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.btf.decl_tags import decl_tags
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.objects import elf
from pytest_bpf.objects.loading.load import load
from pytest_bpf.objects.loading.open_globals import OpenGlobals
from pytest_bpf.objects.loading.open_map import OpenMap
from pytest_bpf.objects.loading.open_program import OpenProgram
from pytest_bpf.objects.loading.rehearsal import rehearse_load, rehearse_open
from pytest_bpf.objects.loading.settings import HandleOwner, ObjectFile, PendingSettings
from pytest_bpf.objects.names import NameMapping

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from pytest_bpf.objects.elf import SourceLine
    from pytest_bpf.objects.loading.object import Object
    from pytest_bpf.objects.loading.settings import OtherBuild


@checked_methods
class OpenObject(HandleOwner):
    """An object file that libbpf has open: ``programs``, ``maps`` and ``globals`` to set up.

    Nothing is in the kernel yet, so that it needs no privilege and no kernel that could load it.
    `load` may be called several times; each call makes another `Object`. ``pins`` returns the
    directory for maps with ``LIBBPF_PIN_BY_NAME``; without it they are not pinned. ``on_load``
    is called with every object that was loaded.
    """

    def __init__(
        self,
        file: ObjectFile,
        *,
        trusted: bool = True,
        pins: Callable[[], Path] | None = None,
        on_load: Callable[[Object], object] = lambda _: None,
        other_build: OtherBuild | None = None,
    ) -> None:
        """Open ``file``; one that is not ``trusted`` is loaded in a child process first.

        ``other_build`` is another build that is loaded in its place, where the kernel takes it.
        """
        super().__init__(file, PendingSettings())
        self.path = file.path
        self._trusted = trusted
        self._pins = pins
        self._on_load = on_load
        self._other_build = other_build
        libbpf.library()
        self.handle  # noqa: B018 (what cannot be opened is an error here)

    @cached_property
    def programs(self) -> Mapping[str, OpenProgram]:
        """The programs by name, those that are not loaded by default too."""
        programs = {name: OpenProgram(self, name) for name in self.handle.programs}
        return NameMapping("program", self.path.name, programs)

    @cached_property
    def maps(self) -> Mapping[str, OpenMap]:
        """The maps by name, also those of global variables (``"count.rodata"``)."""
        maps = {name: OpenMap(self, name) for name in self.handle.maps}
        return NameMapping("map", self.path.name, maps)

    @cached_property
    def globals(self) -> OpenGlobals:
        """The global variables by name."""
        return OpenGlobals(self)

    @cached_property
    def tags(self) -> Mapping[str, tuple[str, ...]]:
        """The BTF declaration tags of the functions that have some."""
        content = elf.sections(self.file.content).get(".BTF")
        return decl_tags(content) if content else {}

    @cached_property
    def source_lines(self) -> tuple[SourceLine, ...]:
        """The source lines of all programs, in order of the instructions."""
        return tuple(elf.source_lines(self.file.content))

    def load(self) -> Object:
        """Create the maps, load the programs, and return the object.

        Raises `LoadError` (a map, a relocation), `VerifierError` (a rejected program), and
        `UnavailableError` for what this environment lacks. After an error this object can be
        changed and loaded again.
        """
        if not self._trusted:
            rehearse_load(self.file, lambda: self)
        other = self._other_build
        obj = load(self, self._pins) if other is None else self._load_other(other)
        self._on_load(obj)
        return obj

    def _load_other(self, other_build: OtherBuild) -> Object:
        """Load the other build, or this one where the kernel does not take that."""
        file = replace(self.file, content=other_build.content)
        try:
            obj = load(HandleOwner(file, self.settings.copy()), self._pins)
        except (BpfError, OSError) as error:
            obj = load(self, self._pins)
            other_build.refused(error)
        else:
            other_build.loaded(obj)
        return obj

    def __enter__(self) -> OpenObject:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OpenObject {self.path.name}>"


def open_file(
    path: str | os.PathLike[str],
    *,
    source: Path | None = None,
    kconfig: str | None = None,
    btf_path: Path | None = None,
    trusted: bool = False,
    set_up: Callable[[OpenObject], object] | None = None,
    pins: Callable[[], Path] | None = None,
    on_load: Callable[[Object], object] = lambda _: None,
    other_build: OtherBuild | None = None,
) -> OpenObject:
    """Open an object file.

    ``source`` is what it was compiled of; ``kconfig`` and ``btf_path`` are for libbpf. A
    ``trusted`` object was compiled here; any other goes through a child process first: there it is
    opened, and with ``set_up`` (for one that is loaded at once) set up and loaded.
    ``other_build`` is as for `OpenObject`.

    Raises `LoadError` for what is no BPF object.
    """
    place = Path(path)
    file = ObjectFile(source or place, elf.read_object(place), kconfig, btf_path)

    def owner() -> OpenObject:
        open_object = OpenObject(file)
        if set_up is not None:
            set_up(open_object)
        return open_object

    libbpf.library()
    if not trusted and set_up is not None:
        rehearse_load(file, owner)
    elif not trusted:
        rehearse_open(file)
    return OpenObject(file, trusted=trusted, pins=pins, on_load=on_load, other_build=other_build)

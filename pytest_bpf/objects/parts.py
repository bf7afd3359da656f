"""What an object is made of, whoever loaded it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_bpf.kernel import libbpf
from pytest_bpf.objects.loaded import by_pointer
from pytest_bpf.objects.map import Map
from pytest_bpf.objects.opening import Opened, internal, section
from pytest_bpf.objects.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_bpf.kernel.btf import Variable


@dataclass(frozen=True)
class Parts:
    """Programs and maps by name, and what else an object has.

    ``variables`` are the global variables by section, ``stored`` the maps that hold these,
    ``pointers`` libbpf's of its maps. ``release`` lets all of it go.
    """

    path: Path
    programs: Mapping[str, Program]
    maps: Mapping[str, Map]
    release: Callable[[], object]
    variables: Mapping[str, tuple[Variable, ...]] = field(default_factory=dict)
    stored: Mapping[str, Map] = field(default_factory=dict)
    pointers: Mapping[str, int] = field(default_factory=dict)


def of(opened: Opened) -> Parts:
    """Return what libbpf has loaded."""
    maps = {name: _map(opened, name, at) for name, at in opened.created_maps().items()}
    hidden = {name for name, pointer in opened.maps.items() if internal(pointer)}
    return Parts(
        opened.path,
        {name: _program(opened, name, at) for name, at in opened.loaded_programs().items()},
        {name: made for name, made in maps.items() if name not in hidden},
        opened.close,
        opened.btf.sections() if opened.btf else {},
        {section(name): maps[name] for name in hidden & set(maps)},
        opened.maps,
    )


def _map(opened: Opened, name: str, pointer: int) -> Map:
    key, value = opened.types[name]
    fd = libbpf.call("bpf_map__fd", pointer)
    return Map(fd, name, key=key, value=value, btf=opened.btf)


def _program(opened: Opened, name: str, pointer: int) -> Program:
    return Program(
        by_pointer(pointer),
        context_type=opened.btf.first_parameter(name) if opened.btf else None,
        load_log=opened.log(name),
        whole_log=opened.whole_log,
    )

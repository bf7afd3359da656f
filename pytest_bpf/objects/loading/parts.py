"""What an object is made of, whoever loaded it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.objects.identity import libbpf_identity
from pytest_bpf.objects.loading.attach_target import is_fixed_by_load
from pytest_bpf.objects.maps.globals import section_type
from pytest_bpf.objects.maps.map import Map
from pytest_bpf.objects.programs.program import Program
from pytest_bpf.objects.types import Types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_bpf.kernel.btf import Variable
    from pytest_bpf.objects.loading.handle import Handle


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
    types: Types = field(default_factory=Types)


def parts_of(
    handle: Handle,
    whole_log: Callable[[str, int], str],
    attach_targets: Mapping[str, Any],
    pins: list[Path],
) -> Parts:
    """Return what libbpf has loaded; ``pins`` are removed with it."""
    created = handle.created_maps()
    types = Types(handle.btf, handle.content, handle.path.name)
    types.not_loaded = frozenset(handle.programs.keys() - handle.autoloaded().keys())
    maps = {name: _map(handle, name, pointer, types) for name, pointer in created.items()}
    internal = handle.sections_of_globals()
    hidden = set(internal.values())

    def release() -> None:
        remove_pins(pins)
        handle.close()

    programs = {}
    for name, pointer in handle.autoloaded().items():
        identity, target = libbpf_identity(pointer), attach_targets.get(name)
        fixed = is_fixed_by_load(identity.type, target)
        program = programs[name] = Program(
            identity,
            context_type=handle.btf.first_parameter(name) if handle.btf else None,
            load_log=handle.log(name),
            whole_log=whole_log,
            attach_target=None if fixed else target,
            has_target=target is not None,
        )
        program.content = handle.content
        if fixed and isinstance(target, (tuple, list)):
            target = target[0]
        program.load_target = target if fixed and isinstance(target, Program) else None
    return Parts(
        handle.path,
        programs,
        {name: entry for name, entry in maps.items() if name not in hidden},
        release,
        {section: handle.btf.variables(section) for section in internal} if handle.btf else {},
        {section: maps[name] for section, name in internal.items() if name in maps},
        handle.maps,
        types,
    )


def remove_pins(paths: list[Path]) -> None:
    """Remove pins that a load created."""
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()


def _map(handle: Handle, name: str, pointer: int, types: Types) -> Map:
    key, value = handle.map_types[name]
    section = next((s for s, owner in handle.sections_of_globals().items() if owner == name), None)
    if section is not None and handle.btf is not None:
        size = libbpf.call("bpf_map__value_size", pointer)
        value = section_type(section, size, handle.btf.variables(section))
    fd = libbpf.call("bpf_map__fd", pointer)
    inner = handle.inner_maps.get(name)
    return Map(fd, name, key=key, value=value, types=types, inner=inner)

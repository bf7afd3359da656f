"""What a map is created from: its kind, types, sizes and flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError, MapError, UnavailableError, with_article
from pytest_bpf.kernel import features
from pytest_bpf.kernel.btf.enums import MAP_TYPES, map_type_id, map_type_name
from pytest_bpf.kernel.features.privilege import privilege
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.maps.memory import MapSpec, check_memory
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kinds.maps import KEYED_BY_DESCRIPTOR, MAPS_OF_MAPS, map_kind
from pytest_bpf.objects.maps.refusals import Sizes, creation_problem, explain_creation

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type

_NO_BTF = KEYED_BY_DESCRIPTOR | {"struct_ops"}
"""The kinds whose maps the kernel creates only with BTF."""


@dataclass(frozen=True)
class MapTemplate:
    """A map before it is created; sizes are in bytes, ``flags`` are ``BPF_F_*``.

    ``key`` and ``value`` are None where it has no types. ``inner`` is what a map of maps holds.
    """

    kind: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    key: Type | None = None
    value: Type | None = None
    inner: MapTemplate | None = None

    @property
    def sizes(self) -> Sizes:
        """The numbers of it."""
        return Sizes(self.key_size, self.value_size, self.max_entries, self.flags)

    @property
    def memory(self) -> MapSpec:
        """What its memory is reckoned from."""
        return MapSpec(self.kind, self.kind, *_numbers(self), self.flags)


def create(template: MapTemplate, inner_fd: int = 0, name: str = "") -> int:
    """Create the map and return its descriptor; ``inner_fd`` is a map like those it will hold.

    Raises `MapError` for what this kind of map does not take, `UnknownNameError` for a kind that
    there is not, and `UnavailableError` without the privilege, or for a kind that the kernel lacks.
    """
    map_type_id(template.kind)
    what = f"{with_article(template.kind)} map"
    if template.kind in _NO_BTF:
        raise MapError(f"{what} is typed by BTF alone: declare it in a source and load that")
    if problem := creation_problem(map_kind(template.kind), template.sizes):
        raise MapError(f"{what} cannot be created: {problem}")
    if template.kind in MAPS_OF_MAPS and not inner_fd:
        raise MapError(f"{what} cannot be created: give inner=, a map like those it will hold")
    try:
        check_memory(f"map {name!r}", [template.memory])
    except LoadError as error:
        raise MapError(str(error)) from None
    try:
        return elements.create(template.kind, *_numbers(template), template.flags, inner=inner_fd)
    except OSError as error:
        code = error.errno or 0
        if missing := privilege():
            raise UnavailableError(f"{what} cannot be created: {missing}") from None
        if template.kind in MAP_TYPES and not features.map_type(template.kind):
            raise UnavailableError(f"this kernel has no {template.kind} maps") from None
        why = explain_creation(code, template.kind, template.sizes)
        raise MapError(f"{what} cannot be created: {why}", code) from None


def _numbers(template: MapTemplate) -> tuple[int, int, int]:
    return template.key_size, template.value_size, template.max_entries


def inner_template(pointer: int, key: Type | None, value: Type | None) -> MapTemplate:
    """Return what libbpf's map ``pointer``, which is not created yet, was declared as."""
    number = {
        name: int(libbpf.call(f"bpf_map__{name}", pointer))
        for name in ("type", "key_size", "value_size", "max_entries", "map_flags")
    }
    return MapTemplate(
        map_type_name(number["type"]),
        number["key_size"],
        number["value_size"],
        number["max_entries"],
        number["map_flags"],
        key,
        value,
    )

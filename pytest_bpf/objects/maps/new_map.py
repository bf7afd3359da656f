"""Maps of one's own: created by kind and C types, without a source that declares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import (
    MapError,
    UnknownNameError,
    ValueTypeError,
    near_matches,
    with_article,
)
from pytest_bpf.kernel.btf.enums import map_type_id
from pytest_bpf.kernel.btf.type_names import BASE_TYPES, parse_type, unknown_type
from pytest_bpf.kernel.values.codec import describe
from pytest_bpf.kinds.maps import map_kind
from pytest_bpf.objects.maps.map import Map
from pytest_bpf.objects.maps.template import MapTemplate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.kinds.maps import MapKind
    from pytest_bpf.objects.types import Types

STACK_DEPTH = 127
"""Addresses in a value of a stack_trace map, where nothing is said (``PERF_MAX_STACK_DEPTH``)."""

_DEFAULT_VALUES = {"stack_trace": 8 * STACK_DEPTH, "sockmap": 8, "sockhash": 8}
"""Sizes in bytes of values whose type need not be said: all of a stack, and cookies of sockets."""


@dataclass(frozen=True)
class MapTypes:
    """What keys and values are said to be, and where types that are no base types come from."""

    key: str | Type | None
    value: str | Type | None
    sources: Sequence[Types] = ()

    def resolve(self, c_type: str | Type | None) -> Type | None:
        """Return a type by its name; what is a type already is returned as it is."""
        return parse_type(c_type, self._find) if isinstance(c_type, str) else c_type

    def _find(self, name: str) -> Type:
        error: UnknownNameError | None = None
        for types in self.sources:
            try:
                return types.find(name)
            except UnknownNameError as unknown:
                error = error or unknown
        near = near_matches(name, BASE_TYPES)
        if "did you mean" in near:
            raise UnknownNameError(f"there is no type {name!r}{near}")
        raise error or unknown_type(name)


def new_map(
    kind: str,
    types: MapTypes,
    *,
    max_entries: int,
    flags: int,
    inner: Map | None,
    name: str,
) -> Map:
    """Create a map; what is said of it, and what is raised, is in `Loader.create_map`."""
    map_type_id(kind)  # near names where there is no such kind
    for label, number in (("max_entries", max_entries), ("flags", flags)):
        if not isinstance(number, int) or not 0 <= number < 1 << 32:
            raise ValueTypeError(f"{label} must be 0 to {2**32 - 1}, not {describe(number)}")
    if inner is not None and not isinstance(inner, Map):
        raise ValueTypeError(f"inner must be a map, not {describe(inner)}")
    row = map_kind(kind)
    key, value = types.resolve(types.key), types.resolve(types.value)
    template = MapTemplate(
        kind,
        key.size if key else _key_size(row),
        value.size if value else _value_size(row),
        max_entries,
        flags | row.flags,
        key,
        value,
        None if inner is None else inner.template,
    )
    map_ = Map.create(template, name)
    if types.sources:
        map_.types = types.sources[0]
    return map_


def _key_size(row: MapKind) -> int:
    if row.keyless:
        return 0
    sizes = row.key_sizes or ((4,) if row.indexed else ())
    if not sizes:
        raise MapError(f'{with_article(row.name)} map needs the type of its keys: key="u32"')
    return sizes[0]


def _value_size(row: MapKind) -> int:
    if row.name in _DEFAULT_VALUES:
        return _DEFAULT_VALUES[row.name]
    if not row.value_sizes:
        raise MapError(f'{with_article(row.name)} map needs the type of its values: value="u64"')
    return row.value_sizes[0]

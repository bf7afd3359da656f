"""A map of an object that is open and not loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.btf.enums import map_type_id, map_type_name
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kinds.flags import MapFlags
from pytest_bpf.objects.maps.map import Map
from pytest_bpf.objects.names import unless_closed

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.loading.open_object import OpenObject


@checked_methods
class OpenMap:
    """A map that is not created yet: ``name`` and what can be set before the load.

    Setting raises `LoadError` for a value that libbpf refuses, and `UnknownNameError` with near
    matches for a type that does not exist.
    """

    def __init__(self, obj: OpenObject, name: str, inner: str = "") -> None:
        self.name = name
        self._object = obj
        self._inner = inner

    @property
    def type(self) -> str:
        """The map type by libbpf's name, as in ``"lru_hash"``."""
        return map_type_name(libbpf.call("bpf_map__type", self._pointer))

    @type.setter  # noqa: A003 (the property)
    def type(self, value: str) -> None:
        self._set("type", map_type_id(value))

    @property
    def key_size(self) -> int:
        """The bytes of a key."""
        return int(libbpf.call("bpf_map__key_size", self._pointer))

    @key_size.setter
    def key_size(self, value: int) -> None:
        self._set("key_size", self._size("key_size", value))

    @property
    def value_size(self) -> int:
        """The bytes of a value. A section of globals can be made longer: its last array grows."""
        return int(libbpf.call("bpf_map__value_size", self._pointer))

    @value_size.setter
    def value_size(self, value: int) -> None:
        self._set("value_size", self._size("value_size", value))

    @property
    def max_entries(self) -> int:
        """The most elements, or the bytes of a ring buffer; 0 where it must be set."""
        return int(libbpf.call("bpf_map__max_entries", self._pointer))

    @max_entries.setter
    def max_entries(self, value: int) -> None:
        self._set("max_entries", self._size("max_entries", value, least=1))

    @property
    def flags(self) -> MapFlags:
        """The flags of ``BPF_MAP_CREATE``."""
        return MapFlags(libbpf.call("bpf_map__map_flags", self._pointer))

    @flags.setter
    def flags(self, value: int) -> None:
        self._set("map_flags", self._size("flags", value))

    @property
    def autocreate(self) -> bool:
        """Whether `OpenObject.load` creates it."""
        return bool(libbpf.call("bpf_map__autocreate", self._pointer))

    @autocreate.setter
    def autocreate(self, value: bool) -> None:
        self._set("autocreate", bool(value))

    @property
    def inner(self) -> OpenMap | None:
        """What a map of maps holds, as it was declared; None for other maps."""
        has_inner = libbpf.function("bpf_map__inner_map")(self._pointer)
        return OpenMap(self._object, self.name, inner=f"{self.name}.inner") if has_inner else None

    @inner.setter
    def inner(self, value: Map) -> None:
        self._set("inner_map_fd", value.fd)

    @property
    def pin_path(self) -> Path | None:
        """Where the map is pinned when it is created; the map that is there already is used.

        Maps with ``LIBBPF_PIN_BY_NAME`` have a path. Set it to a path on a bpf file system, or to
        None.
        """
        pins = self._object.settings.pins
        if self.name in pins:
            return pins[self.name]
        raw = libbpf.function("bpf_map__pin_path")(self._pointer)
        return Path(raw.decode(errors="replace")) if raw else None

    @pin_path.setter
    def pin_path(self, value: str | os.PathLike[str] | None) -> None:
        if value is not None and not isinstance(value, (str, os.PathLike)):
            raise LoadError(f"{self._where}: pin_path={value!r}: pass a path, or None for no pin")
        self._object.settings.pins[self.name] = None if value is None else Path(value)

    @property
    def key(self) -> Type | None:
        """The declared type of its keys."""
        return self._object.handle.map_types[self.name][0]

    @property
    def value(self) -> Type | None:
        """The declared type of its values."""
        return self._object.handle.map_types[self.name][1]

    def reuse(self, other: Map) -> None:
        """Put a map that exists in this one's place.

        Its sizes must be those declared; that is checked when the object is loaded.
        """
        if not isinstance(other, Map):
            raise LoadError(f"{self._where}: {other!r} cannot take its place: pass a Map")
        self._object.settings.maps[self.name] = other

    def __repr__(self) -> str:
        name = f"OpenMap {self._inner or self.name}"
        return unless_closed(name, lambda: f"<{name} ({self.type})>")

    @property
    def _pointer(self) -> int:
        pointer = self._object.handle.maps[self.name]
        return int(libbpf.call("bpf_map__inner_map", pointer)) if self._inner else pointer

    @property
    def _where(self) -> str:
        return f"{self._object.path.name}: map {self._inner or self.name!r}"

    def _size(self, setting: str, value: object, least: int = 0) -> int:
        if not isinstance(value, int) or not least <= value < 2**32:
            raise LoadError(f"{self._where}: {setting}={value!r}; it takes {least} to {2**32 - 1}")
        return int(value)

    def _set(self, setting: str, value: object) -> None:
        if self._inner:
            raise LoadError(
                f"{self._where}: libbpf cannot change {setting} of a declared inner map; set "
                f"maps[{self.name!r}].inner to a map instead"
            )
        try:
            self._object.call(f"bpf_map__set_{setting}", "map", self.name, value)
        except OSError as error:
            raise LoadError(
                f"{self._where}: {setting} cannot be {value!r}: {error.strerror}"
            ) from None

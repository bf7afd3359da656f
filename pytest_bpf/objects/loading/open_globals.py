"""The global variables of an object that is open and not loaded."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, MutableMapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel.values.codec import codec
from pytest_bpf.objects.loading.settings import initial_value, write_initial
from pytest_bpf.objects.names import unknown_name, unless_closed

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Variable
    from pytest_bpf.objects.loading.open_object import OpenObject


class OpenGlobals(MutableMapping[str, Any]):
    """The initial values of the global variables by name, typed by BTF.

    Those of ``.rodata`` can be set here only: loading freezes them. Raises `UnknownNameError`,
    `ValueTypeError`, and `LoadError` for what cannot be set.
    """

    def __init__(self, obj: OpenObject) -> None:
        self._object = obj

    def __getitem__(self, name: str) -> Any:
        variable, map_name = self._place(name)
        address, size = initial_value(self._object.handle.maps[map_name])
        if variable.offset + variable.size > size:
            raise LoadError(f"{self._where}: global {name!r} has no initial value")
        return codec(variable.type).decode(ctypes.string_at(address, size), variable.offset)

    def __setitem__(self, name: str, value: Any) -> None:
        variable, map_name = self._place(name)
        if map_name.endswith(".kconfig"):
            raise LoadError(
                f"{self._where}: {name!r} is of the kernel's configuration; "
                f"set it by open(..., kconfig={{{name!r}: ...}})"
            )
        raw = codec(variable.type).encode(value, f"global {name!r}")
        if not write_initial(self._object.handle.maps[map_name], variable.offset, raw):
            raise LoadError(f"{self._where}: global {name!r} lies outside its section")
        self._object.settings.contents[map_name, variable.offset] = raw

    def __delitem__(self, name: str) -> None:
        raise LoadError(f"{self._where}: global {name!r} cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return unless_closed(f"OpenGlobals of {self._where}", lambda: repr(dict(self)))

    @property
    def _where(self) -> str:
        return self._object.path.name

    def _place(self, name: str) -> tuple[Variable, str]:
        if self._object.handle.btf is None:
            raise LoadError(
                f"{self._where}: has no BTF to find global variables in; compile it with -g"
            )
        if name not in self._places:
            raise unknown_name("global variable", name, self._where, self._places)
        return self._places[name]

    @cached_property
    def _places(self) -> dict[str, tuple[Variable, str]]:
        """Each variable with the map that holds it."""
        handle = self._object.handle
        return {
            variable.name: (variable, map_name)
            for section, map_name in handle.sections_of_globals().items()
            for variable in (handle.btf.variables(section) if handle.btf else ())
        }

"""An object's global variables: set before it is loaded, read and written after."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError, MapError
from pytest_bpf.kernel import elements, libbpf
from pytest_bpf.kernel.values import codec
from pytest_bpf.objects.names import unknown

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Variable
    from pytest_bpf.objects.map import Map

MMAPABLE = 1 << 10
"""``BPF_F_MMAPABLE``."""

CONSTANT = (".rodata", ".kconfig")
"""What the sections begin with that libbpf freezes."""

Sections = Mapping[str, tuple["Variable", ...]]
"""The variables of each section, by the section's name."""


def set_initial(
    where: str, sections: Sections, pointers: Mapping[str, int], values: Mapping[str, Any]
) -> None:
    """Write values into the sections of an object that is open and not loaded yet.

    ``pointers`` are libbpf's maps by section name. Raises `UnknownNameError` and `ValueTypeError`.
    """
    places = {v.name: (v, section) for section, found in sections.items() for v in found}
    for name, value in values.items():
        if name not in places or places[name][1] not in pointers:
            raise unknown("global variable", name, where, places)
        variable, section = places[name]
        size = ctypes.c_size_t()
        content = libbpf.call("bpf_map__initial_value", pointers[section], ctypes.byref(size))
        raw = codec(variable.type).encode(value, f"global {name!r}")
        if variable.offset + len(raw) > size.value:
            raise LoadError(f"{where}: global {name!r} lies outside its section {section}")
        ctypes.memmove(content + variable.offset, raw, len(raw))


class Globals(MutableMapping[str, Any]):
    """The global variables of a loaded object by name, typed by BTF.

    Each access reads or writes the memory that the programs see, and only that variable's.
    Constants (``.rodata``, ``.kconfig``) are fixed by the load: writing one is a `MapError`.
    """

    def __init__(self, where: str, sections: Sections, maps: Mapping[str, Map]) -> None:
        self._where = where
        self._maps = maps
        self._places = {
            v.name: (v, section)
            for section, found in sections.items()
            if section in maps
            for v in found
            if v.offset + v.size <= maps[section].value_size
        }
        self._memory: dict[str, mmap.mmap] = {}

    def __getitem__(self, name: str) -> Any:
        variable, section = self._place(name)
        content = self._mapped(section)
        if content is None:
            of = self._maps[section]
            raw = elements.lookup(of.fd, bytes(4), of.value_size)
            return codec(variable.type).decode(raw, variable.offset)
        end = variable.offset + variable.size
        return codec(variable.type).decode(content[variable.offset : end], 0)

    def __setitem__(self, name: str, value: Any) -> None:
        variable, section = self._place(name)
        if section.startswith(CONSTANT):
            raise MapError(
                f"{self._where}: global {name!r} is a constant once loaded; "
                f"set it by bpf.load(..., globals={{{name!r}: ...}})"
            )
        raw = codec(variable.type).encode(value, f"global {name!r}")
        content = self._mapped(section)
        if content is not None:
            content[variable.offset : variable.offset + len(raw)] = raw
            return
        of = self._maps[section]
        whole = bytearray(elements.lookup(of.fd, bytes(4), of.value_size))
        whole[variable.offset : variable.offset + len(raw)] = raw
        elements.update(of.fd, bytes(4), bytes(whole))

    def __delitem__(self, name: str) -> None:
        raise MapError(f"{self._where}: global {name!r} cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return repr(dict(self))

    def close(self) -> None:
        """Unmap the sections."""
        for memory in self._memory.values():
            memory.close()
        self._memory.clear()

    def _place(self, name: str) -> tuple[Variable, str]:
        if name not in self._places:
            raise unknown("global variable", name, self._where, self._places)
        return self._places[name]

    def _mapped(self, section: str) -> mmap.mmap | None:
        """Return a section's memory, shared with the programs; None where the kernel cannot."""
        of = self._maps[section]
        if not of.flags & MMAPABLE:
            return None
        if section not in self._memory:
            write = 0 if section.startswith(CONSTANT) else mmap.PROT_WRITE
            self._memory[section] = mmap.mmap(
                of.fd, of.value_size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | write
            )
        return self._memory[section]

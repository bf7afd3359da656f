"""An object's global variables, read and written after it is loaded."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError, ValueTypeError
from pytest_bpf.kernel.btf import Member, Struct
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.values.codec import codec
from pytest_bpf.kinds.flags import MapFlags
from pytest_bpf.objects.names import unknown_name, unless_closed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.kernel.btf import Variable
    from pytest_bpf.objects.maps.map import Map


CONSTANT = (".rodata", ".kconfig")
"""What the sections begin with that libbpf freezes."""

Sections = Mapping[str, tuple["Variable", ...]]
"""The variables of each section, by the section's name."""


def section_type(section: str, size: int, variables: Sequence[Variable]) -> Struct:
    """Return the type of a whole section: a struct whose members are its variables."""
    places = sorted(variables, key=lambda variable: variable.offset)
    members = (Member(v.name, v.type, 8 * v.offset) for v in places if v.offset + v.size <= size)
    return Struct(section, size, tuple(members))


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
            for section, variables in sections.items()
            if section in maps
            for v in variables
            if v.offset + v.size <= maps[section].value_size
        }
        self._memory: dict[str, mmap.mmap] = {}

    def __getitem__(self, name: str) -> Any:
        variable, section = self._place(name)
        content = self._mapped(section)
        if content is None:
            holder = self._maps[section]
            raw = elements.lookup(holder.fd, bytes(4), holder.value_size)
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
        holder = self._maps[section]
        whole = bytearray(elements.lookup(holder.fd, bytes(4), holder.value_size))
        whole[variable.offset : variable.offset + len(raw)] = raw
        elements.update(holder.fd, bytes(4), bytes(whole))

    def __delitem__(self, name: str) -> None:
        raise MapError(f"{self._where}: global {name!r} cannot be deleted")

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Set several variables: ``update({"limit": 5})``; raises `ValueTypeError` for no mapping.

        Names and values are those of ``globals[name] = value``.
        """
        pairs = other.items() if isinstance(other, Mapping) else other
        try:
            several = dict(pairs, **values)
        except (TypeError, ValueError):
            raise ValueTypeError(
                f"{self._where}: globals are updated from a mapping of names to values, "
                f"not {other!r:.60}"
            ) from None
        for name, value in several.items():
            self[name] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return unless_closed("Globals", lambda: repr(dict(self)))

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections whose variables can change."""
        every = dict.fromkeys(section for _, section in self._places.values())
        return tuple(section for section in every if not section.startswith(CONSTANT))

    def since_load(self, section: str, initial: bytes) -> Iterator[tuple[str, Any, Any]]:
        """Yield the name, the first value and the value now of each variable of a section.

        ``initial`` is the section in the object file; what is not there began as zeros.
        """
        for name, (variable, its_section) in self._places.items():
            if its_section != section:
                continue
            start = initial.ljust(variable.offset + variable.size, b"\0")
            yield name, codec(variable.type).decode(start, variable.offset), self[name]

    def variable(self, name: str) -> Variable:
        """Return where a variable lies and its type; `UnknownNameError` for another name."""
        return self._place(name)[0]

    def memory(self, name: str) -> memoryview | None:
        """Return a variable's bytes, shared with the programs; release it before the object closes.

        None for constants, and where the kernel does not map the section.
        """
        variable, section = self._place(name)
        content = None if section.startswith(CONSTANT) else self._mapped(section)
        if content is None:
            return None
        return memoryview(content)[variable.offset : variable.offset + variable.size]

    def close(self) -> None:
        """Unmap the sections."""
        for memory in self._memory.values():
            memory.close()
        self._memory.clear()

    def _place(self, name: str) -> tuple[Variable, str]:
        if not isinstance(name, str) or name not in self._places:
            raise unknown_name("global variable", name, self._where, self._places)
        return self._places[name]

    def _mapped(self, section: str) -> mmap.mmap | None:
        """Return a section's memory, shared with the programs; None where the kernel cannot."""
        holder = self._maps[section]
        if not holder.flags & MapFlags.MMAPABLE:
            return None
        if section not in self._memory:
            write = 0 if section.startswith(CONSTANT) else mmap.PROT_WRITE
            self._memory[section] = mmap.mmap(
                holder.fd, holder.value_size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | write
            )
        return self._memory[section]

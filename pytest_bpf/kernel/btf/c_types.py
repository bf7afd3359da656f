"""C types as frozen values: what a map's key, a global or an event looks like in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Int:
    """An integer or ``_Bool``; ``size`` in bytes."""

    name: str
    size: int
    signed: bool = False
    boolean: bool = False


@dataclass(frozen=True)
class Float:
    """A floating-point number; ``size`` in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Pointer:
    """A pointer, whose value is an address; what it points to is left alone.

    A ``kptr`` is one of the kernel's in a map, which user space neither sees nor sets.
    """

    size: int = 8
    kptr: bool = False


@dataclass(frozen=True)
class Enumeration:
    """An ``enum``; ``members`` are (name, value) pairs in order of declaration."""

    name: str
    size: int
    signed: bool
    members: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Array:
    """``count`` elements of one type."""

    element: Type
    count: int

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.element.size * self.count


@dataclass(frozen=True)
class Member:
    """A member of a struct or union; ``bit_size`` is 0 unless it is a bit-field."""

    name: str
    type: Type
    bit_offset: int
    bit_size: int = 0


@dataclass(frozen=True)
class Struct:
    """A struct, or a union when ``union``; ``size`` in bytes with its padding."""

    name: str
    size: int
    members: tuple[Member, ...]
    union: bool = False

    def flat_members(self) -> Iterator[Member]:
        """Yield the members as C names them: those of anonymous members belong to this struct."""
        for member in self.members:
            if not member.name and isinstance(member.type, Struct):
                for inner in member.type.flat_members():
                    yield replace(inner, bit_offset=member.bit_offset + inner.bit_offset)
            elif member.name:
                yield member


@dataclass(frozen=True)
class Opaque:
    """Bytes of which only the size is known: no BTF, a forward declaration, ``void``."""

    name: str
    size: int


Type = Union[Int, Float, Pointer, Enumeration, Array, Struct, Opaque]  # noqa: UP007 (runs on 3.10 with forward names)


NETWORK_ORDER = frozenset({"__be16", "__be32", "__be64"})
"""The typedefs of integers that are in network order, whatever the machine."""


def alias(name: str, c_type: Type) -> Type:
    """Return what a typedef stands for: its type, under the typedef's name where that tells more.

    Structs and enums without a name take it, and integers when it says that they are big-endian.
    """
    if isinstance(c_type, (Struct, Enumeration)) and not c_type.name:
        return replace(c_type, name=name)
    if isinstance(c_type, Int) and name in NETWORK_ORDER:
        return replace(c_type, name=name)
    return c_type


@dataclass(frozen=True)
class Variable:
    """A global variable: where it lies in its section (``.rodata``, ``.data``, ``.bss``)."""

    name: str
    type: Type
    offset: int
    size: int

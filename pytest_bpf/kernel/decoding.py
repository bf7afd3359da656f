"""C values in memory to Python values; see :mod:`pytest_bpf.kernel.values`."""

from __future__ import annotations

import enum
import struct
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from pytest_bpf.kernel.btf import (
    Array,
    Enumeration,
    Float,
    Int,
    Member,
    Opaque,
    Pointer,
    Struct,
    Type,
)
from pytest_bpf.kernel.records import record_class

Decoder = Callable[[bytes, int], Any]
"""Takes a buffer and an offset in bytes; returns the value that lies there."""

FLOATS = {4: "f", 8: "d"}
"""`struct`'s letters by size in bytes."""

_FORMATS = {1: "b", 2: "h", 4: "i", 8: "q"}


def is_char(of: Type) -> bool:
    """Say whether it is ``char``, and not ``unsigned char`` or ``signed char``."""
    return isinstance(of, Int) and of.name == "char"


def is_bytes(of: Type) -> bool:
    """Say whether its value is written as `bytes`: octets, or what has no other form."""
    if isinstance(of, Array) and isinstance(of.element, Int):
        octets = of.element.size == 1 and not of.element.boolean and not of.element.signed
        return octets or is_char(of.element)
    return isinstance(of, Opaque) or (isinstance(of, Float) and of.size not in FLOATS)


@cache
def decoder(of: Type) -> Decoder:
    """Return the function that reads a value of this type; made once."""
    if isinstance(of, Int):
        return _scalar(of.size, signed=of.signed) if not of.boolean else _boolean
    if isinstance(of, Pointer):
        return _scalar(of.size, signed=False)
    if isinstance(of, Float) and of.size in FLOATS:
        return _unpacker(FLOATS[of.size])
    if isinstance(of, Enumeration):
        return _enumerator(of)
    if isinstance(of, Array):
        return _elements(of)
    if isinstance(of, Struct):
        return _members(of)
    size = of.size
    return lambda buffer, offset: bytes(buffer[offset : offset + size])


def _unpacker(letter: str) -> Decoder:
    unpack = struct.Struct("=" + letter).unpack_from
    return lambda buffer, offset: unpack(buffer, offset)[0]


def _scalar(size: int, *, signed: bool) -> Decoder:
    if size in _FORMATS:
        return _unpacker(_FORMATS[size] if signed else _FORMATS[size].upper())
    return lambda buffer, offset: int.from_bytes(
        buffer[offset : offset + size], sys.byteorder, signed=signed
    )


def _boolean(buffer: bytes, offset: int) -> bool:
    return bool(buffer[offset])


@cache
def _int_enum(of: Enumeration) -> type[enum.IntEnum] | None:
    names = {name: value for name, value in of.members if not _reserved(name)}
    made: type[enum.IntEnum] = enum.IntEnum(of.name or "enum", names)  # type: ignore[misc]
    return made if names else None


def _reserved(name: str) -> bool:
    """Say whether Python's enum cannot have a member of this name."""
    return name in {"", "mro"} or (name.startswith("_") and name.endswith("_"))


def _enumerator(of: Enumeration) -> Decoder:
    scalar, named = _scalar(of.size, signed=of.signed), named_values(of)

    def decode(buffer: bytes, offset: int) -> int:
        value: int = scalar(buffer, offset)
        return named.get(value, value)

    return decode


def named_values(of: Type) -> dict[int, int]:
    """Return the members of an enum by their values; nothing for other types."""
    made = _int_enum(of) if isinstance(of, Enumeration) else None
    return {int(member): member for member in made} if made else {}


def _elements(of: Array) -> Decoder:
    if is_char(of.element):
        return lambda buffer, offset: (
            bytes(buffer[offset : offset + of.count])
            .split(b"\0", 1)[0]
            .decode(errors="surrogateescape")
        )
    if is_bytes(of):
        return lambda buffer, offset: bytes(buffer[offset : offset + of.count])
    element, size, count = decoder(of.element), of.element.size, of.count
    return lambda buffer, offset: tuple(element(buffer, offset + i * size) for i in range(count))


def _members(of: Struct) -> Decoder:
    members = tuple(of.flat_members())
    made = record_class(of.name, tuple(member.name for member in members))
    new = tuple.__new__
    simple = _flat_format(of, members)
    if simple is not None:
        unpack = simple.unpack_from
        return lambda buffer, offset: new(made, unpack(buffer, offset))
    parts = tuple(_member(member) for member in members)
    return lambda buffer, offset: new(made, [part(buffer, offset) for part in parts])


def _flat_format(of: Struct, members: tuple[Member, ...]) -> struct.Struct | None:
    """Return one `struct` format for a struct of plain integers, the fast way to decode it."""
    letters, at = "=", 0
    for member in members:
        plain = isinstance(member.type, Int) and member.type.size in _FORMATS
        offset = member.bit_offset // 8
        if of.union or not plain or member.bit_size or offset < at:
            return None
        letter = "?" if getattr(member.type, "boolean", False) else _FORMATS[member.type.size]
        signed = getattr(member.type, "signed", False) or letter == "?"
        letters += f"{offset - at}x" + (letter if signed else letter.upper())
        at = offset + member.type.size
    return struct.Struct(letters)


def _member(member: Member) -> Decoder:
    if not member.bit_size:
        inner, at = decoder(member.type), member.bit_offset // 8
        return lambda buffer, offset: inner(buffer, offset + at)
    first, shift, size = bit_field(member)
    mask = (1 << member.bit_size) - 1
    sign = 1 << (member.bit_size - 1) if getattr(member.type, "signed", False) else 0
    boolean = getattr(member.type, "boolean", False)
    named = named_values(member.type)

    def decode(buffer: bytes, offset: int) -> int:
        start = offset + first
        word = int.from_bytes(buffer[start : start + size], sys.byteorder)
        value = (word >> shift) & mask
        value -= (value & sign) << 1
        return bool(value) if boolean else named.get(value, value)

    return decode


def bit_field(member: Member) -> tuple[int, int, int]:
    """Return (first byte, shift of the lowest bit, bytes) of the word a bit-field lies in."""
    first = member.bit_offset // 8
    size = (member.bit_offset % 8 + member.bit_size + 7) // 8
    low = member.bit_offset % 8
    shift = low if sys.byteorder == "little" else 8 * size - low - member.bit_size
    return first, shift, size

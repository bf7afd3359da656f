"""C values in memory to Python values; see :mod:`pytest_bpf.kernel.values.codec`."""

from __future__ import annotations

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
    Pointer,
    Struct,
    Type,
)
from pytest_bpf.kernel.values.encoding import encoder
from pytest_bpf.kernel.values.forms import FLOATS, bit_field, is_bytes, is_char, is_network_int
from pytest_bpf.kernel.values.records import (
    Elements,
    NetworkInt,
    Octets,
    Record,
    Text,
    enum_class,
    value_class,
)

Decoder = Callable[[bytes, int], Any]
"""Takes a buffer and an offset in bytes; returns the value that lies there."""

_FORMATS = {1: "b", 2: "h", 4: "i", 8: "q"}


def _not_shown(_: bytes, __: int) -> None:
    """Stand for what the kernel gives as 0, whatever it is."""


@cache
def decoder(c_type: Type) -> Decoder:
    """Return the function that reads a value of this type; made once."""
    if is_network_int(c_type):
        scalar, made = _scalar(c_type.size, signed=False), class_of(c_type)
        return lambda buffer, offset: made(scalar(buffer, offset))
    if isinstance(c_type, Int):
        return _scalar(c_type.size, signed=c_type.signed) if not c_type.boolean else _boolean
    if isinstance(c_type, Pointer):
        return _scalar(c_type.size, signed=False) if not c_type.kptr else _not_shown
    if isinstance(c_type, Float) and c_type.size in FLOATS:
        return _unpacker(FLOATS[c_type.size])
    if isinstance(c_type, Enumeration):
        return _enumerator(c_type)
    if isinstance(c_type, Array):
        return _elements(c_type)
    if isinstance(c_type, Struct):
        return _members(c_type)
    return _octets(c_type)


@cache
def class_of(c_type: Type) -> Any:
    """Return the class of a type's values; made once. `Record` and the like are its bases."""
    if isinstance(c_type, Enumeration):
        return enum_class(c_type)
    bases = {Struct: Record, Int: NetworkInt, Array: Elements}
    base = Octets if is_bytes(c_type) else bases[type(c_type)]
    return value_class(c_type, base, lambda value: convert(c_type, value))


def convert(c_type: Type, value: Any) -> Any:
    """Return what ``value`` is when it is written as this type and read again.

    Raises `ValueTypeError` when it does not fit.
    """
    return decoder(c_type)(encoder(c_type)(value, "the value"), 0)


def _octets(c_type: Type) -> Decoder:
    made, size, new = class_of(c_type), c_type.size, bytes.__new__
    return lambda buffer, offset: new(made, buffer[offset : offset + size])


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


def _enumerator(c_type: Enumeration) -> Decoder:
    scalar, members = _scalar(c_type.size, signed=c_type.signed), enum_members(c_type)

    def decode(buffer: bytes, offset: int) -> int:
        value: int = scalar(buffer, offset)
        return members.get(value, value)

    return decode


def enum_members(c_type: Type) -> dict[int, int]:
    """Return the members of an enum by their values; nothing for other types."""
    members = enum_class(c_type) if isinstance(c_type, Enumeration) else None
    return {int(member): member for member in members} if members else {}


def _elements(c_type: Array) -> Decoder:
    count = c_type.count
    if is_char(c_type.element):
        return lambda buffer, offset: Text(bytes(buffer[offset : offset + count]))
    if is_bytes(c_type):
        return _octets(c_type)
    element, size, made = decoder(c_type.element), c_type.element.size, class_of(c_type)
    new = tuple.__new__
    return lambda buffer, offset: new(
        made, [element(buffer, offset + i * size) for i in range(count)]
    )


def _members(c_type: Struct) -> Decoder:
    members = tuple(c_type.flat_members())
    record = class_of(c_type)
    new = tuple.__new__
    simple = _flat_format(c_type, members)
    if simple is not None:
        unpack = simple.unpack_from
        return lambda buffer, offset: new(record, unpack(buffer, offset))
    parts = tuple(_member(member) for member in members)
    return lambda buffer, offset: new(record, [part(buffer, offset) for part in parts])


def _flat_format(c_type: Struct, members: tuple[Member, ...]) -> struct.Struct | None:
    """Return one `struct` format for a struct of plain integers, the fast way to decode it."""
    letters, at = "=", 0
    for member in members:
        plain = isinstance(member.type, Int) and member.type.size in _FORMATS
        plain = plain and not is_network_int(member.type)
        offset = member.bit_offset // 8
        if c_type.union or not plain or member.bit_size or offset < at:
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
    members = enum_members(member.type)

    def decode(buffer: bytes, offset: int) -> int:
        start = offset + first
        word = int.from_bytes(buffer[start : start + size], sys.byteorder)
        value = (word >> shift) & mask
        value -= (value & sign) << 1
        return bool(value) if boolean else members.get(value, value)

    return decode

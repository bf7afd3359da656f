"""C values as Python values, both ways, by their BTF type.

========================  =============================================================
C                         Python
========================  =============================================================
integers, ``_Bool``       `int`, `bool`
``float``, ``double``     `float`
``enum``                  an `enum.IntEnum` member; `int` when the value has no name
``char[n]``               `str`, up to the first NUL
``unsigned char[n]``      `bytes`, all of them
other arrays              `tuple`
structs, unions           `Record`: attributes by member name, compares with tuples and dicts
pointers                  `int`
no BTF                    `bytes`
========================  =============================================================
"""

from __future__ import annotations

import enum
import ipaddress
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter, or_
from typing import Any, ClassVar

from pytest_bpf.errors import ValueTypeError, near_matches
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

Decoder = Callable[[bytes, int], Any]
"""Takes a buffer and an offset in bytes; returns the value that lies there."""

Encoder = Callable[[Any, str], bytes]
"""Takes a value and what to call it in an error; returns its bytes."""

_ORDER = "little" if sys.byteorder == "little" else "big"
_FORMATS = {1: "b", 2: "h", 4: "i", 8: "q"}
_FLOATS = {4: "f", 8: "d"}


class Record(tuple[Any, ...]):
    """A struct's members in order, by attribute and by index; equal to the same tuple or dict."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _name: ClassVar[str] = ""

    def _asdict(self) -> dict[str, Any]:
        """Return the members by name; nested records become dicts too."""
        return {
            name: value._asdict() if isinstance(value, Record) else value
            for name, value in zip(self._fields, self, strict=True)
        }

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return dict(zip(self._fields, self, strict=True)) == other
        return tuple.__eq__(self, other) if isinstance(other, tuple) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return tuple.__hash__(self)

    def __getattr__(self, name: str) -> Any:
        hint = near_matches(name, self._fields)
        raise AttributeError(f"{self._name} has no member {name!r}{hint}")

    def __repr__(self) -> str:
        members = ", ".join(f"{n}={v!r}" for n, v in zip(self._fields, self, strict=True))
        return f"{self._name}({members})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _record, (self._name, self._fields, tuple(self))


@cache
def record_class(name: str, fields: tuple[str, ...]) -> type[Record]:
    """Return the `Record` class of a struct with these members."""
    members: dict[str, Any] = {f: property(itemgetter(i)) for i, f in enumerate(fields)}
    body = {"__slots__": (), "_fields": fields, "_name": name or "struct", **members}
    return type(name or "struct", (Record,), body)


def _record(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Record:
    return tuple.__new__(record_class(name, fields), values)


@dataclass(frozen=True)
class Codec:
    """One C type: its ``size`` in bytes, and the way there and back."""

    size: int
    decode: Decoder
    encode: Encoder


@cache
def codec(of: Type) -> Codec:
    """Return the codec of a type; building one costs microseconds, and is done once."""
    encode = _encoder(of)

    def encode_any(value: Any, what: str) -> bytes:
        if not isinstance(value, (Record, memoryview)) and hasattr(value, "tolist"):  # numpy's
            value = value.tolist()
        if isinstance(value, (bytes, bytearray, memoryview)) and not _is_bytes(of):
            raw = bytes(value)
            if len(raw) != of.size:
                raise ValueTypeError(
                    f"{what}: {len(raw)} raw bytes given, {spelled(of)} has {of.size}"
                )
            return raw
        return encode(value, what)

    return Codec(of.size, _decoder(of), encode_any)


def spelled(of: Type) -> str:
    """Return a type as C spells it: ``"struct stats"``, ``"char[16]"``.

    >>> spelled(Array(Int("char", 1, signed=True), 16))
    'char[16]'
    """
    if isinstance(of, Array):
        return f"{spelled(of.element)}[{of.count}]"
    if isinstance(of, Struct):
        return f"{'union' if of.union else 'struct'} {of.name or '(anonymous)'}"
    if isinstance(of, Enumeration):
        return f"enum {of.name or '(anonymous)'}"
    if isinstance(of, Pointer):
        return "void *"
    return of.name or f"{of.size} bytes"


def _is_char(of: Type) -> bool:
    return isinstance(of, Int) and of.name == "char"


def _is_bytes(of: Type) -> bool:
    if isinstance(of, Array) and isinstance(of.element, Int):
        octets = of.element.size == 1 and not of.element.boolean and not of.element.signed
        return octets or _is_char(of.element)
    return isinstance(of, Opaque) or (isinstance(of, Float) and of.size not in _FLOATS)


# -- from memory to Python ---------------------------------------------------------------------


def _decoder(of: Type) -> Decoder:
    if isinstance(of, Int):
        return _scalar(of.size, signed=of.signed) if not of.boolean else _boolean
    if isinstance(of, Pointer):
        return _scalar(of.size, signed=False)
    if isinstance(of, Float) and of.size in _FLOATS:
        return _unpacker(_FLOATS[of.size])
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
    scalar, named = _scalar(of.size, signed=of.signed), _named_values(of)

    def decode(buffer: bytes, offset: int) -> int:
        value: int = scalar(buffer, offset)
        return named.get(value, value)

    return decode


def _named_values(of: Type) -> dict[int, int]:
    """Return the members of an enum by their values; nothing for other types."""
    made = _int_enum(of) if isinstance(of, Enumeration) else None
    return {int(member): member for member in made} if made else {}


def _elements(of: Array) -> Decoder:
    if _is_char(of.element):
        return lambda buffer, offset: (
            bytes(buffer[offset : offset + of.count])
            .split(b"\0", 1)[0]
            .decode(errors="surrogateescape")
        )
    if _is_bytes(of):
        return lambda buffer, offset: bytes(buffer[offset : offset + of.count])
    element, size, count = _decoder(of.element), of.element.size, of.count
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
        inner, at = _decoder(member.type), member.bit_offset // 8
        return lambda buffer, offset: inner(buffer, offset + at)
    first, shift, size = _bit_field(member)
    mask = (1 << member.bit_size) - 1
    sign = 1 << (member.bit_size - 1) if getattr(member.type, "signed", False) else 0
    boolean = getattr(member.type, "boolean", False)
    named = _named_values(member.type)

    def decode(buffer: bytes, offset: int) -> int:
        start = offset + first
        word = int.from_bytes(buffer[start : start + size], sys.byteorder)
        value = (word >> shift) & mask
        value -= (value & sign) << 1
        return bool(value) if boolean else named.get(value, value)

    return decode


def _bit_field(member: Member) -> tuple[int, int, int]:
    """Return (first byte, shift of the lowest bit, bytes) of the word a bit-field lies in."""
    first = member.bit_offset // 8
    size = (member.bit_offset % 8 + member.bit_size + 7) // 8
    low = member.bit_offset % 8
    shift = low if sys.byteorder == "little" else 8 * size - low - member.bit_size
    return first, shift, size


# -- from Python to memory ---------------------------------------------------------------------


def _encoder(of: Type) -> Encoder:
    if isinstance(of, (Int, Pointer, Enumeration)):
        return lambda value, what: _integer(of, value, what)
    if isinstance(of, Float) and of.size in _FLOATS:
        return lambda value, what: _number(of, value, what)
    if isinstance(of, Struct):
        return lambda value, what: _structure(of, value, what)
    if isinstance(of, Array) and not _is_bytes(of):
        return lambda value, what: _array(of, value, what)
    return lambda value, what: _blob(of, value, what)


def _integer(of: Int | Pointer | Enumeration, value: Any, what: str) -> bytes:
    size, signed = of.size, getattr(of, "signed", False)
    if isinstance(of, Enumeration) and isinstance(value, str):
        value = _named(of, value, what)
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        value = int.from_bytes(value.packed, sys.byteorder)
    if not hasattr(value, "__index__"):
        raise ValueTypeError(f"{what}: {spelled(of)} takes an int, not {_shown(value)}")
    number = int(value.__index__())
    low, high = (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if signed else (0, 256**size - 1)
    if getattr(of, "boolean", False):
        high = 1
    if not low <= number <= high:
        raise ValueTypeError(f"{what}: {number} does not fit {spelled(of)} ({low} to {high})")
    return number.to_bytes(size, sys.byteorder, signed=signed)


def _named(of: Enumeration, name: str, what: str) -> int:
    values = dict(of.members)
    if name not in values:
        raise ValueTypeError(f"{what}: {spelled(of)} has no {name!r}{near_matches(name, values)}")
    return values[name]


def _number(of: Float, value: Any, what: str) -> bytes:
    if not isinstance(value, (int, float)):
        raise ValueTypeError(f"{what}: {spelled(of)} takes a number, not {_shown(value)}")
    try:
        return struct.pack("=" + _FLOATS[of.size], value)
    except OverflowError:
        raise ValueTypeError(f"{what}: {_shown(value)} does not fit {spelled(of)}") from None


def _blob(of: Type, value: Any, what: str) -> bytes:
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        value = value.packed
    if isinstance(value, str) and not isinstance(of, Opaque):
        value = value.encode(errors="surrogateescape")
    if isinstance(value, int) and isinstance(of, Opaque) and 0 < of.size <= 8:
        return _integer(Int(f"{of.size}-byte value", of.size, signed=value < 0), value, what)
    try:
        raw = bytes(value) if not isinstance(value, int) else None
    except (TypeError, ValueError):
        raw = None
    if raw is None:
        raise ValueTypeError(f"{what}: {spelled(of)} takes bytes, not {_shown(value)}")
    exact = not isinstance(of, Array)
    if len(raw) > of.size or (exact and len(raw) != of.size):
        raise ValueTypeError(f"{what}: {len(raw)} bytes given, {spelled(of)} has {of.size}")
    return raw.ljust(of.size, b"\0")


def _array(of: Array, value: Any, what: str) -> bytes:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueTypeError(f"{what}: {spelled(of)} takes a sequence, not {_shown(value)}")
    if len(value) > of.count:
        raise ValueTypeError(f"{what}: {len(value)} elements given, {spelled(of)} has {of.count}")
    encode = codec(of.element).encode
    raw = b"".join(encode(element, f"{what}[{i}]") for i, element in enumerate(value))
    return raw.ljust(of.size, b"\0")


def _structure(of: Struct, value: Any, what: str) -> bytes:
    members = {member.name: member for member in of.flat_members()}
    raw = bytearray(of.size)
    overlap = isinstance(value, Record)  # the members of its unions are views of the same bytes
    for name, given in _by_name(of, members, value, what).items():
        member = members[name]
        if member.bit_size:
            _put_bits(raw, member, given, f"{what}.{name}")
            continue
        at = member.bit_offset // 8
        part = codec(member.type).encode(given, f"{what}.{name}")
        there = raw[at : at + len(part)]
        raw[at : at + len(part)] = bytes(map(or_, there, part)) if overlap else part
    return bytes(raw)


def _by_name(of: Struct, members: Mapping[str, Member], value: Any, what: str) -> Mapping[str, Any]:
    """Return the members that ``value`` gives; those it leaves out are zero, as in C."""
    record = isinstance(value, Record)
    if record:
        value = dict(zip(value._fields, value, strict=True))
    if isinstance(value, Mapping):
        unknown = next((name for name in value if name not in members), None)
        if unknown is not None:
            hint = near_matches(str(unknown), members)
            raise ValueTypeError(f"{what}: {spelled(of)} has no member {unknown!r}{hint}")
        if of.union and len(value) != 1 and not record:
            raise ValueTypeError(f"{what}: {spelled(of)} takes one member, not {len(value)}")
        return value
    if isinstance(value, Sequence) and not isinstance(value, str) and not of.union:
        if len(value) != len(members):
            raise ValueTypeError(
                f"{what}: {len(value)} members given, {spelled(of)} has {len(members)}: "
                f"{', '.join(members)}"
            )
        return dict(zip(members, value, strict=True))
    raise ValueTypeError(
        f"{what}: {spelled(of)} takes a dict of {', '.join(members)}, not {_shown(value)}"
    )


def _put_bits(raw: bytearray, member: Member, value: Any, what: str) -> None:
    if isinstance(member.type, Enumeration) and isinstance(value, str):
        value = _named(member.type, value, what)
    signed = bool(getattr(member.type, "signed", False))
    low = -(1 << member.bit_size - 1) if signed else 0
    high = (1 << member.bit_size - int(signed)) - 1
    if not hasattr(value, "__index__") or not low <= int(value) <= high:
        raise ValueTypeError(
            f"{what}: a bit-field of {member.bit_size} takes {low} to {high}, not {_shown(value)}"
        )
    first, shift, size = _bit_field(member)
    mask = ((1 << member.bit_size) - 1) << shift
    word = int.from_bytes(raw[first : first + size], sys.byteorder)
    word = (word & ~mask) | ((int(value) << shift) & mask)
    raw[first : first + size] = word.to_bytes(size, sys.byteorder)


def _shown(value: object) -> str:
    text = repr(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"{type(value).__name__} {shown}"

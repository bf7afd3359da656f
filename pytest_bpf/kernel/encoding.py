"""Python values to C values in memory; see :mod:`pytest_bpf.kernel.values`."""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import or_
from typing import Any

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
from pytest_bpf.kernel.decoding import FLOATS, bit_field, is_bytes
from pytest_bpf.kernel.records import Record

Encoder = Callable[[Any, str], bytes]
"""Takes a value and what to call it in an error; returns its bytes."""


@cache
def encoder(of: Type) -> Encoder:
    """Return the function that writes a value of this type; made once.

    It takes raw bytes of the type's size as well, and numpy's values.
    """
    encode = _plain(of)

    def encode_any(value: Any, what: str) -> bytes:
        if not isinstance(value, (Record, memoryview)) and hasattr(value, "tolist"):  # numpy's
            value = value.tolist()
        if isinstance(value, (bytes, bytearray, memoryview)) and not is_bytes(of):
            raw = bytes(value)
            if len(raw) != of.size:
                raise ValueTypeError(
                    f"{what}: {len(raw)} raw bytes given, {spelled(of)} has {of.size}"
                )
            return raw
        return encode(value, what)

    return encode_any


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


def _plain(of: Type) -> Encoder:
    if isinstance(of, (Int, Pointer, Enumeration)):
        return lambda value, what: _integer(of, value, what)
    if isinstance(of, Float) and of.size in FLOATS:
        return lambda value, what: _number(of, value, what)
    if isinstance(of, Struct):
        return lambda value, what: _structure(of, value, what)
    if isinstance(of, Array) and not is_bytes(of):
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
        return struct.pack("=" + FLOATS[of.size], value)
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
    encode = encoder(of.element)
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
        part = encoder(member.type)(given, f"{what}.{name}")
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
    first, shift, size = bit_field(member)
    mask = ((1 << member.bit_size) - 1) << shift
    word = int.from_bytes(raw[first : first + size], sys.byteorder)
    word = (word & ~mask) | ((int(value) << shift) & mask)
    raw[first : first + size] = word.to_bytes(size, sys.byteorder)


def _shown(value: object) -> str:
    text = repr(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"{type(value).__name__} {shown}"

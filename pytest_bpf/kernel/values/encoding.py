"""Python values to C values in memory; see :mod:`pytest_bpf.kernel.values.codec`."""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
from pytest_bpf.kernel.values import addresses
from pytest_bpf.kernel.values.forms import FLOATS, bit_field, is_bytes, is_char, takes_address
from pytest_bpf.kernel.values.records import Record, Text

Encoder = Callable[[Any, str], bytes]
"""Takes a value and what to call it in an error; returns its bytes."""


@cache
def encoder(c_type: Type) -> Encoder:
    """Return the function that writes a value of this type; made once.

    It takes raw bytes of the type's size as well, and numpy's values.
    """
    encode = _plain(c_type)
    by_address = takes_address(c_type) and not is_char(getattr(c_type, "element", c_type))

    def encode_any(value: Any, label: str) -> bytes:
        if not isinstance(value, (Record, memoryview)) and hasattr(value, "tolist"):  # numpy's
            value = _plain_value(c_type, value)
        if by_address and (raw_address := _address(value, label)) is not None:
            return _sized_address(c_type, value, raw_address, label)
        if isinstance(value, (bytes, bytearray, memoryview)) and not is_bytes(c_type):
            raw = bytes(value)
            if len(raw) != c_type.size:
                raise ValueTypeError(
                    f"{label}: {len(raw)} raw bytes given, {c_name(c_type)} has {c_type.size}"
                )
            return raw
        return encode(value, label)

    return encode_any


def _plain_value(c_type: Type, value: Any) -> Any:
    """Return a value of numpy's as Python has it; a struct of the same layout as its bytes."""
    if isinstance(c_type, Struct) and getattr(getattr(value, "dtype", None), "names", None):
        from pytest_bpf.kernel.values.dtypes import dtype  # noqa: PLC0415 (who gives one has numpy)

        if value.ndim == 0 and value.dtype == dtype(c_type):
            return value.tobytes()
    return value.tolist()


def _address(value: Any, label: str) -> bytes | None:
    try:
        return addresses.pack(value)
    except ValueTypeError as error:
        raise ValueTypeError(f"{label}: {error}") from None


def c_name(c_type: Type) -> str:
    """Return a type as C spells it: ``"struct stats"``, ``"char[16]"``.

    >>> c_name(Array(Array(Int("char", 1, signed=True), 16), 2))
    'char[2][16]'
    """
    if isinstance(c_type, Array):
        counts = ""
        while isinstance(c_type, Array):
            counts += f"[{c_type.count}]"
            c_type = c_type.element
        return c_name(c_type) + counts
    if isinstance(c_type, Struct):
        return f"{'union' if c_type.union else 'struct'} {c_type.name or '(anonymous)'}"
    if isinstance(c_type, Enumeration):
        return f"enum {c_type.name or '(anonymous)'}"
    if isinstance(c_type, Pointer):
        return "void *"
    return c_type.name or f"{c_type.size} bytes"


def _plain(c_type: Type) -> Encoder:
    if isinstance(c_type, Pointer) and c_type.kptr:
        return lambda value, label: _kptr(c_type, value, label)
    if isinstance(c_type, (Int, Pointer, Enumeration)):
        return lambda value, label: _integer(c_type, value, label)
    if isinstance(c_type, Float) and c_type.size in FLOATS:
        return lambda value, label: _number(c_type, value, label)
    if isinstance(c_type, Struct):
        shared = _shares_bytes(c_type)
        return lambda value, label: _structure(c_type, value, label, shared=shared)
    if isinstance(c_type, Array) and not is_bytes(c_type):
        return lambda value, label: _array(c_type, value, label)
    return lambda value, label: _blob(c_type, value, label)


def _kptr(c_type: Pointer, value: Any, label: str) -> bytes:
    """Return zeros, in whose place the kernel leaves what is there."""
    if value is not None:
        raise ValueTypeError(
            f"{label}: a kptr, which programs alone set and the kernel shows to nobody; leave it "
            f"out, or give None, not {describe(value)}"
        )
    return bytes(c_type.size)


def _integer(c_type: Int | Pointer | Enumeration, value: Any, label: str) -> bytes:
    size, signed = c_type.size, getattr(c_type, "signed", False)
    if isinstance(c_type, Enumeration) and isinstance(value, str):
        value = _enumerator(c_type, value, label)
    if not hasattr(value, "__index__") or isinstance(value, type):
        more = ", and that is no address" if size in {4, 16} and isinstance(value, str) else ""
        raise ValueTypeError(f"{label}: {c_name(c_type)} takes an int, not {describe(value)}{more}")
    number = int(value.__index__())
    low, high = (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if signed else (0, 256**size - 1)
    if getattr(c_type, "boolean", False):
        high = 1
    if not low <= number <= high:
        raise ValueTypeError(
            f"{label}: {_digits(number)} does not fit {c_name(c_type)} ({low} to {high})"
        )
    return number.to_bytes(size, sys.byteorder, signed=signed)


def _enumerator(c_type: Enumeration, name: str, label: str) -> int:
    values = dict(c_type.members)
    if name not in values:
        raise ValueTypeError(
            f"{label}: {c_name(c_type)} has no {name!r}{near_matches(name, values)}"
        )
    return values[name]


def _number(c_type: Float, value: Any, label: str) -> bytes:
    if not isinstance(value, (int, float)):
        raise ValueTypeError(f"{label}: {c_name(c_type)} takes a number, not {describe(value)}")
    try:
        return struct.pack("=" + FLOATS[c_type.size], value)
    except (OverflowError, struct.error):
        raise ValueTypeError(f"{label}: {describe(value)} does not fit {c_name(c_type)}") from None


def _sized_address(c_type: Type, value: Any, raw: bytes, label: str) -> bytes:
    if len(raw) != c_type.size:
        raise ValueTypeError(
            f"{label}: the address {value} has {len(raw)} bytes, {c_name(c_type)} has {c_type.size}"
        )
    return raw


def _blob(c_type: Type, value: Any, label: str) -> bytes:
    if isinstance(value, Text):
        value = bytes(value) if len(bytes(value)) <= c_type.size else bytes(value).rstrip(b"\0")
    elif isinstance(value, str) and not isinstance(c_type, Opaque):
        if not is_char(getattr(c_type, "element", c_type)) and c_type.size in addresses.SIZES:
            raise ValueTypeError(
                f"{label}: {describe(value)} is no {addresses.SIZES[c_type.size]} address, which "
                f"{c_name(c_type)} takes as text; for the text itself give bytes"
            )
        try:
            value = value.encode(errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise ValueTypeError(f"{label}: {describe(value)} is no text: {error.reason}") from None
    elif isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return _sized_address(c_type, value, value.packed, label)
    if isinstance(value, int) and isinstance(c_type, Opaque) and 0 < c_type.size <= 8:
        return _integer(
            Int(f"{c_type.size}-byte value", c_type.size, signed=value < 0), value, label
        )
    try:
        raw = None if isinstance(value, (int, AbstractSet)) else bytes(value)  # a set has no order
    except (TypeError, ValueError):
        raw = None
    if raw is None:
        raise ValueTypeError(f"{label}: {c_name(c_type)} takes bytes, not {describe(value)}")
    exact = not isinstance(c_type, Array)
    if len(raw) > c_type.size or (exact and len(raw) != c_type.size):
        raise ValueTypeError(f"{label}: {len(raw)} bytes given, {c_name(c_type)} has {c_type.size}")
    return raw.ljust(c_type.size, b"\0")


def _array(c_type: Array, value: Any, label: str) -> bytes:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueTypeError(f"{label}: {c_name(c_type)} takes a sequence, not {describe(value)}")
    if len(value) > c_type.count:
        raise ValueTypeError(
            f"{label}: {len(value)} elements given, {c_name(c_type)} has {c_type.count}"
        )
    encode = encoder(c_type.element)
    raw = b"".join(encode(element, f"{label}[{i}]") for i, element in enumerate(value))
    return raw.ljust(c_type.size, b"\0")


def _shares_bytes(c_type: Struct) -> bool:
    """Say whether members are views of the same bytes: those of anonymous unions."""
    end = 0
    for member in sorted(c_type.flat_members(), key=lambda member: member.bit_offset):
        if member.bit_offset < end:
            return True
        end = member.bit_offset + (member.bit_size or 8 * member.type.size)
    return False


def _structure(c_type: Struct, value: Any, label: str, *, shared: bool) -> bytes:
    members = {member.name: member for member in c_type.flat_members()}
    raw = bytearray(c_type.size)
    overlap = isinstance(value, Record)  # the members of its unions are views of the same bytes
    parts: list[tuple[str, int, bytes]] = []
    for name, part_value in _by_name(c_type, members, value, label).items():
        member = members[name]
        if member.bit_size:
            _put_bits(raw, member, part_value, f"{label}.{name}")
            continue
        at = member.bit_offset // 8
        part = encoder(member.type)(part_value, f"{label}.{name}")
        there = raw[at : at + len(part)]
        raw[at : at + len(part)] = bytes(map(or_, there, part)) if overlap else part
        if shared and not overlap:
            parts.append((name, at, part))
    for name, at, part in parts:
        if raw[at : at + len(part)] != part:
            raise ValueTypeError(
                f"{label}: {c_name(c_type)} has {name!r} in the same bytes as another member that "
                "is given, with another value: give one of them"
            )
    return bytes(raw)


def _by_name(
    c_type: Struct, members: Mapping[str, Member], value: Any, label: str
) -> Mapping[str, Any]:
    """Return the members that ``value`` gives; those it leaves out are zero, as in C."""
    record = isinstance(value, Record)
    if record:
        value = dict(zip(value._fields, value, strict=True))
    if isinstance(value, Mapping):
        stranger = next((name for name in value if name not in members), None)
        if stranger is not None:
            hint = near_matches(str(stranger), members)
            raise ValueTypeError(f"{label}: {c_name(c_type)} has no member {stranger!r}{hint}")
        if c_type.union and len(value) != 1 and not record:
            raise ValueTypeError(f"{label}: {c_name(c_type)} takes one member, not {len(value)}")
        return value
    if isinstance(value, Sequence) and not isinstance(value, str) and not c_type.union:
        if len(value) != len(members):
            raise ValueTypeError(
                f"{label}: {len(value)} members given, {c_name(c_type)} has {len(members)}: "
                f"{', '.join(members)}"
            )
        return dict(zip(members, value, strict=True))
    raise ValueTypeError(
        f"{label}: {c_name(c_type)} takes a dict of {', '.join(members)}, not {describe(value)}"
    )


def _put_bits(raw: bytearray, member: Member, value: Any, label: str) -> None:
    if isinstance(member.type, Enumeration) and isinstance(value, str):
        value = _enumerator(member.type, value, label)
    signed = bool(getattr(member.type, "signed", False))
    low = -(1 << member.bit_size - 1) if signed else 0
    high = (1 << member.bit_size - int(signed)) - 1
    number = hasattr(value, "__index__") and not isinstance(value, type)
    if not number or not low <= int(value) <= high:
        raise ValueTypeError(
            f"{label}: a bit-field of {member.bit_size} bits takes {low} to {high}, "
            f"not {describe(value)}"
        )
    first, shift, size = bit_field(member)
    mask = ((1 << member.bit_size) - 1) << shift
    word = int.from_bytes(raw[first : first + size], sys.byteorder)
    word = (word & ~mask) | ((int(value) << shift) & mask)
    raw[first : first + size] = word.to_bytes(size, sys.byteorder)


def describe(value: object) -> str:
    """Return a value's Python type and its text, shortened, for an error."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"of {value.bit_length()} bits" if isinstance(value, int) else "..."
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"{type(value).__name__} {shown}"


def _digits(number: int) -> str:
    """Return a number as text; one that Python does not print, by its size."""
    return str(number) if number.bit_length() < 1000 else f"a number of {number.bit_length()} bits"

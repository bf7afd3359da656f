"""Which form the values of a C type have in Python, and where bit-fields lie."""

from __future__ import annotations

import sys

from pytest_bpf.kernel.btf import Array, Float, Int, Member, Opaque, Struct, Type
from pytest_bpf.kernel.btf.c_types import NETWORK_ORDER

FLOATS = {4: "f", 8: "d"}
"""`struct`'s letters by size in bytes."""


def is_char(c_type: Type) -> bool:
    """Say whether it is ``char``, and not ``unsigned char`` or ``signed char``."""
    return isinstance(c_type, Int) and c_type.name == "char"


def is_bytes(c_type: Type) -> bool:
    """Say whether its value is written as `bytes`: octets, or what has no other form."""
    if isinstance(c_type, Array) and isinstance(c_type.element, Int):
        octets = (
            c_type.element.size == 1 and not c_type.element.boolean and not c_type.element.signed
        )
        return octets or is_char(c_type.element)
    return isinstance(c_type, Opaque) or (isinstance(c_type, Float) and c_type.size not in FLOATS)


def is_network_int(c_type: Type) -> bool:
    """Say whether it is a number in network order: a ``__be32`` may be an address."""
    return isinstance(c_type, Int) and c_type.name in NETWORK_ORDER


def takes_address(c_type: Type) -> bool:
    """Say whether a value may be an IP or MAC address: integers, arrays of them, ``in6_addr``.

    A struct may when all that it has is one such member, and a union when each of them is one.
    """
    if isinstance(c_type, Int):
        return not c_type.boolean
    if isinstance(c_type, Array):
        return isinstance(c_type.element, Int) and takes_address(c_type.element)
    if isinstance(c_type, Struct):
        whole = all(member.type.size == c_type.size for member in c_type.members)
        return (
            bool(c_type.members)
            and whole
            and all(not member.bit_size and takes_address(member.type) for member in c_type.members)
        )
    return isinstance(c_type, Opaque)


def bit_field(member: Member) -> tuple[int, int, int]:
    """Return (first byte, shift of the lowest bit, bytes) of the word a bit-field lies in."""
    first = member.bit_offset // 8
    size = (member.bit_offset % 8 + member.bit_size + 7) // 8
    low = member.bit_offset % 8
    shift = low if sys.byteorder == "little" else 8 * size - low - member.bit_size
    return first, shift, size

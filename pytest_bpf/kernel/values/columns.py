"""Many C values of one type as Python values, member by member: a fraction of the time of each."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.btf.c_types import Array, Enumeration, Float, Int, Pointer, Struct
from pytest_bpf.kernel.values.decoding import class_of, decoder, enum_members
from pytest_bpf.kernel.values.forms import bit_field, is_bytes, is_char, is_network_int
from pytest_bpf.kernel.values.records import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np

    from pytest_bpf.kernel.btf.c_types import Member, Type

_NUMBERS = frozenset("biuf")
"""The kinds of dtype whose values Python has itself."""

_WORDS = frozenset({1, 2, 4})
"""Bytes of the words that bit-fields are taken from in bulk; wider ones overflow a number."""


def decode_all(c_type: Type, array: np.ndarray[Any, Any]) -> list[Any]:
    """Return what `decoder` makes of each element of a one-dimensional array of ``dtype(of)``."""
    with collector_off():
        return _column(c_type, array) if len(array) else []


def _column(c_type: Type, array: np.ndarray[Any, Any]) -> list[Any]:
    if is_network_int(c_type) and array.dtype.kind in _NUMBERS:
        return list(map(class_of(c_type), array.tolist()))
    if isinstance(c_type, Pointer) and c_type.kptr:
        return [None] * len(array)
    if isinstance(c_type, (Int, Pointer, Float)) and array.dtype.kind in _NUMBERS:
        return list(array.tolist())
    if isinstance(c_type, Enumeration) and array.dtype.kind in _NUMBERS:
        enumerators = enum_members(c_type)
        return [enumerators.get(value, value) for value in array.tolist()]
    if isinstance(c_type, Array) and c_type.size:
        return _arrays(c_type, array)
    if isinstance(c_type, Struct) and c_type.size and c_type.members:
        members = list(c_type.flat_members())
        columns = (_member(c_type, member, array) for member in members)
        return _tuples(c_type, zip(*columns, strict=True))
    return _one_by_one(c_type, array)


def _one_by_one(c_type: Type, array: np.ndarray[Any, Any]) -> list[Any]:
    decode, data = decoder(c_type), array.tobytes()
    return [decode(data, at * c_type.size) for at in range(len(array))]


def _member(c_type: Struct, member: Member, array: np.ndarray[Any, Any]) -> list[Any]:
    if not member.bit_size:
        return _column(member.type, array[member.name])
    first, shift, size = bit_field(member)
    if size not in _WORDS:
        return [value for (value,) in _one_by_one(replace(c_type, members=(member,)), array)]
    whole = array.tobytes()
    word = array.__class__((len(array),), f"u{size}", whole, first, (c_type.size,))
    value = (word >> shift) & ((1 << member.bit_size) - 1)
    if getattr(member.type, "boolean", False):
        return list(value.astype(bool).tolist())
    if getattr(member.type, "signed", False):
        sign = 1 << (member.bit_size - 1)
        value = (value.astype("i8") ^ sign) - sign
    members = enum_members(member.type)
    return [members.get(v, v) for v in value.tolist()] if members else list(value.tolist())


def _arrays(c_type: Array, array: np.ndarray[Any, Any]) -> list[Any]:
    if is_char(c_type.element):
        raw = array.tolist()
        texts = {each: Text(each.ljust(c_type.count, b"\0")) for each in {*raw}}
        return [texts[each] for each in raw]
    if is_bytes(c_type):
        data, size, made = array.tobytes(), c_type.size, class_of(c_type)
        return [made(data[at : at + size]) for at in range(0, len(data), size)]
    flat = _column(c_type.element, array.reshape(-1, *array.shape[2:]))
    return _tuples(c_type, zip(*[iter(flat)] * c_type.count, strict=True))


def _tuples(c_type: Type, values: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return values of a struct or an array from plain tuples."""
    return list(map(class_of(c_type), values))


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector from looking through what is being made, again and again.

    What was made is old at once: frozen and thawed it is in the oldest generation, unseen.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if enabled and not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
    finally:
        if enabled:
            gc.enable()

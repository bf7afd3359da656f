"""Many C values of one type as Python values, member by member: a fraction of the time of each."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.c_types import Array, Enumeration, Float, Int, Pointer, Struct
from pytest_bpf.kernel.decoding import bit_field, decoder, is_bytes, is_char, named_values
from pytest_bpf.kernel.records import record_class

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from pytest_bpf.kernel.c_types import Member, Type

_NUMBERS = frozenset("biuf")
"""The kinds of dtype whose values Python has itself."""

_WORDS = frozenset({1, 2, 4})
"""Bytes of the words that bit-fields are taken from in bulk; wider ones overflow a number."""


def decode_all(of: Type, array: np.ndarray[Any, Any]) -> list[Any]:
    """Return what `decoder` makes of each element of a one-dimensional array of ``dtype(of)``."""
    with collector_off():
        return _column(of, array) if len(array) else []


def _column(of: Type, array: np.ndarray[Any, Any]) -> list[Any]:
    if isinstance(of, (Int, Pointer, Float)) and array.dtype.kind in _NUMBERS:
        return list(array.tolist())
    if isinstance(of, Enumeration) and array.dtype.kind in _NUMBERS:
        named = named_values(of)
        return [named.get(value, value) for value in array.tolist()]
    if isinstance(of, Array) and of.size:
        return _arrays(of, array)
    if isinstance(of, Struct) and of.size and of.members:
        members = list(of.flat_members())
        made = record_class(of.name, tuple(member.name for member in members))
        columns = (_member(of, member, array) for member in members)
        return list(map(made, zip(*columns, strict=True)))
    return _one_by_one(of, array)


def _one_by_one(of: Type, array: np.ndarray[Any, Any]) -> list[Any]:
    decode, data = decoder(of), array.tobytes()
    return [decode(data, at * of.size) for at in range(len(array))]


def _member(of: Struct, member: Member, array: np.ndarray[Any, Any]) -> list[Any]:
    if not member.bit_size:
        return _column(member.type, array[member.name])
    first, shift, size = bit_field(member)
    if size not in _WORDS:
        return [value for (value,) in _one_by_one(replace(of, members=(member,)), array)]
    whole = array.tobytes()
    word = array.__class__((len(array),), f"u{size}", whole, first, (of.size,))
    value = (word >> shift) & ((1 << member.bit_size) - 1)
    if getattr(member.type, "boolean", False):
        return list(value.astype(bool).tolist())
    if getattr(member.type, "signed", False):
        sign = 1 << (member.bit_size - 1)
        value = (value.astype("i8") ^ sign) - sign
    named = named_values(member.type)
    return [named.get(v, v) for v in value.tolist()] if named else list(value.tolist())


def _arrays(of: Array, array: np.ndarray[Any, Any]) -> list[Any]:
    if is_char(of.element):
        raw = array.tolist()
        known = {each: each.split(b"\0", 1)[0].decode(errors="surrogateescape") for each in {*raw}}
        return [known[each] for each in raw]
    if is_bytes(of):
        data, size = array.tobytes(), of.size
        return [data[at : at + size] for at in range(0, len(data), size)]
    flat = _column(of.element, array.reshape(-1, *array.shape[2:]))
    return list(zip(*[iter(flat)] * of.count, strict=True))


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

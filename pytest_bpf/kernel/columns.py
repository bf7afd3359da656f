"""Many C values of one type as Python values, member by member: a fraction of the time of each."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.c_types import Array, Enumeration, Float, Int, Pointer, Struct
from pytest_bpf.kernel.decoding import decoder, is_bytes, is_char, named_values
from pytest_bpf.kernel.records import record_class

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from pytest_bpf.kernel.c_types import Type

_NUMBERS = frozenset("biuf")
"""The kinds of dtype whose values Python has itself."""


def decode_all(of: Type, array: np.ndarray[Any, Any]) -> list[Any]:
    """Return what `decoder` makes of each element of a one-dimensional array of ``dtype(of)``."""
    with _no_collection():
        return _column(of, array)


def _column(of: Type, array: np.ndarray[Any, Any]) -> list[Any]:
    if isinstance(of, (Int, Pointer, Float)) and array.dtype.kind in _NUMBERS:
        return list(array.tolist())
    if isinstance(of, Enumeration) and array.dtype.kind in _NUMBERS:
        named = named_values(of)
        return [named.get(value, value) for value in array.tolist()]
    if isinstance(of, Array) and of.size:
        return _arrays(of, array)
    if isinstance(of, Struct) and of.size:
        members = list(of.flat_members())
        if members and not any(member.bit_size for member in members):
            made = record_class(of.name, tuple(member.name for member in members))
            columns = (_column(member.type, array[member.name]) for member in members)
            return list(map(made, zip(*columns, strict=True)))
    decode, data = decoder(of), array.tobytes()
    return [decode(data, at * of.size) for at in range(len(array))]


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
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from looking through what is being made, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

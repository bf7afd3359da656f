"""C types as numpy dtypes, so that a whole map is one structured array."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.btf import Array, Enumeration, Float, Int, Member, Pointer, Struct, Type

if TYPE_CHECKING:
    import numpy as np

_NATIVE = frozenset({1, 2, 4, 8})


@cache
def dtype(c_type: Type) -> np.dtype[Any]:
    """Return the dtype with the size and the layout of a C type.

    ``char[n]`` is ``S<n>``, other arrays are sub-arrays, unions have overlapping fields. The bytes
    that neighbouring bit-fields lie in are one field, named ``bits<byte offset>``: an unsigned
    number where numpy has one of that size. What it has no number for (``__int128``, no BTF) is
    ``V<size>``.
    """
    import numpy as np  # noqa: PLC0415 (90 ms, and only for whoever asks for arrays)

    if isinstance(c_type, Int) and c_type.boolean:
        return np.dtype(np.bool_)
    if isinstance(c_type, (Int, Enumeration, Pointer)) and c_type.size in _NATIVE:
        signed = getattr(c_type, "signed", False)
        return np.dtype(f"{'i' if signed else 'u'}{c_type.size}")
    if isinstance(c_type, Float) and c_type.size in _NATIVE:
        return np.dtype(f"f{c_type.size}")
    if isinstance(c_type, Array):
        if isinstance(c_type.element, Int) and c_type.element.name == "char":
            return np.dtype(f"S{c_type.count}")
        return np.dtype((dtype(c_type.element), (c_type.count,)))
    if isinstance(c_type, Struct):
        return _struct_dtype(c_type)
    return np.dtype(f"V{c_type.size}")


def element_dtype(key_size: int, value_size: int, cpus: int = 0) -> np.dtype[Any]:
    """Return the dtype of an untyped element: ``key`` and ``value``, with nothing between.

    ``value`` has one for each of ``cpus``, unless that is 0. Sizes are in bytes; those that a
    processor moves in one go are unsigned numbers, which numpy copies faster.
    """
    import numpy as np  # noqa: PLC0415

    key, value = (f"u{size}" if size in _NATIVE else f"V{size}" for size in (key_size, value_size))
    return np.dtype([("key", key), ("value", value, (cpus,) if cpus else ())])


def _struct_dtype(c_type: Struct) -> np.dtype[Any]:
    import numpy as np  # noqa: PLC0415

    members = list(c_type.flat_members())
    fields = {m.name: (dtype(m.type), m.bit_offset // 8) for m in members if not m.bit_size}
    for first, last in _words([member for member in members if member.bit_size]):
        size = last - first
        form = np.dtype(f"u{size}" if size in _NATIVE else f"V{size}")
        fields[f"bits{first}"] = (form, first)
    return np.dtype(
        {
            "names": list(fields),
            "formats": [form for form, _ in fields.values()],
            "offsets": [at for _, at in fields.values()],
            "itemsize": c_type.size,
        }
    )


def _words(bit_fields: list[Member]) -> list[tuple[int, int]]:
    """Return the (first byte, byte after the last) of bit-fields, those that touch as one."""
    words: list[tuple[int, int]] = []
    for member in sorted(bit_fields, key=lambda member: member.bit_offset):
        first = member.bit_offset // 8
        end = (member.bit_offset + member.bit_size + 7) // 8
        if words and first <= words[-1][1]:
            words[-1] = (words[-1][0], max(words[-1][1], end))
        else:
            words.append((first, end))
    return words

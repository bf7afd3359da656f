"""C types as numpy dtypes, so that a whole map is one structured array."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.btf import Array, Enumeration, Float, Int, Pointer, Struct, Type

if TYPE_CHECKING:
    import numpy as np

_NATIVE = frozenset({1, 2, 4, 8})


@cache
def dtype(of: Type) -> np.dtype[Any]:
    """Return the dtype with the size and the layout of a C type.

    ``char[n]`` is ``S<n>``, other arrays are sub-arrays, unions have overlapping fields. The words
    that bit-fields lie in are fields of their own, named ``bits<byte offset>``; what numpy has no
    number for (``__int128``, no BTF) is ``V<size>``.
    """
    import numpy as np  # noqa: PLC0415 (90 ms, and only for whoever asks for arrays)

    if isinstance(of, Int) and of.boolean:
        return np.dtype(np.bool_)
    if isinstance(of, (Int, Enumeration, Pointer)) and of.size in _NATIVE:
        signed = getattr(of, "signed", False)
        return np.dtype(f"{'i' if signed else 'u'}{of.size}")
    if isinstance(of, Float) and of.size in _NATIVE:
        return np.dtype(f"f{of.size}")
    if isinstance(of, Array):
        if isinstance(of.element, Int) and of.element.name == "char":
            return np.dtype(f"S{of.count}")
        return np.dtype((dtype(of.element), (of.count,)))
    if isinstance(of, Struct):
        return _struct_dtype(of)
    return np.dtype(f"V{of.size}")


def _struct_dtype(of: Struct) -> np.dtype[Any]:
    import numpy as np  # noqa: PLC0415

    fields: dict[str, tuple[Any, int]] = {}
    for member in of.flat_members():
        at = member.bit_offset // 8
        if not member.bit_size:
            fields[member.name] = (dtype(member.type), at)
        else:
            word = at // member.type.size * member.type.size
            fields[f"bits{word}"] = (dtype(member.type), word)
    return np.dtype(
        {
            "names": list(fields),
            "formats": [form for form, _ in fields.values()],
            "offsets": [at for _, at in fields.values()],
            "itemsize": of.size,
        }
    )

"""C types by the names that everybody knows: ``u32``, ``char[16]``, ``unsigned int``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnknownNameError, ValueTypeError
from pytest_bpf.kernel.btf.c_types import NETWORK_ORDER, Array, Float, Int, Pointer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.kernel.btf.c_types import Type

_INTEGERS = {
    **{f"{prefix}u{8 * size}": (size, False) for prefix in ("", "__") for size in (1, 2, 4, 8)},
    **{f"{prefix}s{8 * size}": (size, True) for prefix in ("", "__") for size in (1, 2, 4, 8)},
    **{f"uint{8 * size}_t": (size, False) for size in (1, 2, 4, 8)},
    **{f"int{8 * size}_t": (size, True) for size in (1, 2, 4, 8)},
    **{name: (int(name[4:]) // 8, False) for name in NETWORK_ORDER},
    "char": (1, True),
    "signed char": (1, True),
    "unsigned char": (1, False),
    "short": (2, True),
    "unsigned short": (2, False),
    "int": (4, True),
    "unsigned int": (4, False),
    "unsigned": (4, False),
    "long": (8, True),
    "unsigned long": (8, False),
    "size_t": (8, False),
    "long long": (8, True),
    "unsigned long long": (8, False),
    "__int128": (16, True),
    "unsigned __int128": (16, False),
}

BASE_TYPES: dict[str, Type] = {
    **{name: Int(name, size, signed=signed) for name, (size, signed) in _INTEGERS.items()},
    "bool": Int("bool", 1, boolean=True),
    "_Bool": Int("_Bool", 1, boolean=True),
    "float": Float("float", 4),
    "double": Float("double", 8),
}
"""The types that need no declaration, as BPF has them: ``long`` has 8 bytes."""

_ARRAY = re.compile(r"(?P<element>[^\[\]]+?)\s*(?P<counts>(?:\[\s*\d+\s*\])*)")


def parse_type(name: str, find: Callable[[str], Type]) -> Type:
    """Return the type that a C name says: a base type, an array, a pointer, or what ``find`` has.

    ``find`` is asked for what is no base type, without the ``[n]``. Raises its error, which should
    be an `UnknownNameError`, and `ValueTypeError` for what is no name of a type.

    >>> parse_type("u16[2]", BASE_TYPES.__getitem__).size
    4
    """
    match = _ARRAY.fullmatch(name.strip()) if isinstance(name, str) else None
    if match is None:
        raise ValueTypeError(f'{name!r} is no C type; write one as "u32", "char[16]" or "struct x"')
    element = " ".join(match["element"].split())
    c_type = BASE_TYPES.get(element)
    if c_type is None:
        c_type = Pointer() if element.endswith("*") else find(element)
    for count in reversed(re.findall(r"\d+", match["counts"])):
        c_type = Array(c_type, int(count))
    return c_type


def unknown_type(name: str) -> UnknownNameError:
    """Return the error for a type that no object has."""
    return UnknownNameError(
        f"there is no type {name!r}: it is no base type such as 'u32' or 'char[16]', and no object "
        "that was loaded has it; give one that has by types="
    )

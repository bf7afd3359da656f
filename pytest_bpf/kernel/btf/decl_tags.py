"""Declaration tags (``BTF_KIND_DECL_TAG``) of functions, read from an object's ``.BTF`` section.

This reads the bytes themselves: it needs neither libbpf nor privilege, and is fast enough for
collecting tests from many objects.
"""

from __future__ import annotations

import struct

from pytest_bpf.errors import LoadError

MAGIC = 0xEB9F
FUNC, DECL_TAG = 12, 17
WHOLE = 0xFFFFFFFF
"""``component_idx`` of a tag on the function itself, and not on a parameter."""

_FIXED = {1: 4, 3: 12, 14: 4, DECL_TAG: 4}
_PER_ELEMENT = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""Bytes that follow ``struct btf_type``, by kind: a fixed number, or one for each element."""


def decl_tags(btf: bytes) -> dict[str, tuple[str, ...]]:
    """Return the tags of each function that has some, in the order of the source.

    ``btf`` is the content of a ``.BTF`` section. Raises `LoadError` when it is damaged.
    """
    try:
        return _read(btf)
    except (struct.error, IndexError, ValueError):
        raise LoadError("the BTF is damaged: its types reach past the end of the section") from None


def _read(btf: bytes) -> dict[str, tuple[str, ...]]:
    magic, _, _, header, types_at, types_size, names_at, _ = struct.unpack_from("=HBBIIIII", btf)
    if magic != MAGIC:
        raise LoadError(f"the BTF is damaged: it starts with {magic:#x}, not {MAGIC:#x}")
    types, names = header + types_at, header + names_at
    functions: dict[int, int] = {}
    tags: list[tuple[int, int]] = []
    at, end, number = types, types + types_size, 1
    while at < end:
        name, info, target = struct.unpack_from("=III", btf, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        if kind == FUNC:
            functions[number] = name
        elif kind == DECL_TAG and struct.unpack_from("=I", btf, at + 12)[0] == WHOLE:
            tags.append((target, name))
        at += 12 + _FIXED.get(kind, 0) + _PER_ELEMENT.get(kind, 0) * count
        number += 1
    by_function: dict[str, list[str]] = {}
    for target, name in tags:
        if target in functions:
            by_function.setdefault(_text(btf, names + functions[target]), []).append(
                _text(btf, names + name)
            )
    return {function: tuple(texts) for function, texts in by_function.items()}


def _text(btf: bytes, at: int) -> str:
    return btf[at : btf.index(b"\0", at)].decode(errors="replace")

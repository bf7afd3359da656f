"""The events of a BCC source, as BCC describes them: ``"pid#u32"``, ``"comm#char[16]"``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.btf.c_types import Array, Float, Int, Member, Pointer, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.kernel.btf.c_types import Type

RECORDS = frozenset({"struct", "struct_packed", "union"})
SIZES = {"char": 1, "short": 2, "int": 4, "long": 8, "long long": 8, "__int128": 16}
FIXED = re.compile(r"_*(?P<sign>[us])(?P<bits>8|16|32|64)|(?P<un>u?)int(?P<width>8|16|32|64)_t")
MEMBER = re.compile(r"(?P<name>\w+)#(?P<type>[^\[]+?)\s*(?P<counts>(?:\[\d+\])*)")


def struct_of(name: str, members: Iterable[str]) -> Struct | None:
    """Return the struct that has these members, laid out as C does; None without or with others.

    BCC does not describe structs within structs.
    """
    at, widest, fields = 0, 1, []
    for description in members:
        parts = MEMBER.fullmatch(description)
        kind = _type(parts["type"].strip()) if parts else None
        if parts is None or kind is None:
            return None
        alignment = kind.size
        for count in reversed(re.findall(r"\d+", parts["counts"])):
            kind = Array(kind, int(count))
        at = _up(at, alignment)
        fields.append(Member(parts["name"], kind, 8 * at, 0))
        at, widest = at + kind.size, max(widest, alignment)
    return Struct(name, _up(at, widest), tuple(fields), union=False) if fields else None


def type_of(description: Any) -> Type | None:
    """Return the type that BCC describes, from its JSON; None for one that it does not know.

    That is a name, ``["stats", [["a", "int"], ...], "struct"]``, or ``["mode", [...], "enum"]``.
    """
    if isinstance(description, str):
        return _type(description)
    name, parts, kind = description
    if kind == "enum":  # BCC gives the names of its values, not the values
        return Int(f"enum {name}", 4)
    at, widest, members = 0, 1, []
    for part in parts:
        anonymous = isinstance(part[-1], str) and part[-1] in RECORDS
        member, inner, *counts = ("", part) if anonymous else part
        c_type = type_of(inner)
        if c_type is None or any(isinstance(count, int) for count in counts):  # a bit-field
            return None
        alignment = 1 if kind == "struct_packed" else _alignment(c_type)
        for count in reversed(counts[0] if counts else []):
            c_type = Array(c_type, count)
        at = 0 if kind == "union" else _up(at, alignment)
        members.append(Member(member, c_type, 8 * at))
        at, widest = at + c_type.size, max(widest, alignment)
    size = max((m.bit_offset // 8 + m.type.size for m in members), default=0)
    members = [m for m in members if not m.name.startswith("__pad")]
    return Struct(name, _up(size, widest), tuple(members), union=kind == "union")


def _alignment(c_type: Type) -> int:
    if isinstance(c_type, Array):
        return _alignment(c_type.element)
    if isinstance(c_type, Struct):
        return max((_alignment(member.type) for member in c_type.members), default=1)
    return c_type.size


def _type(name: str) -> Type | None:
    if name.endswith("*"):
        return Pointer()
    if name.startswith("enum "):
        return Int(name, 4)
    if match := FIXED.fullmatch(name):
        bits = int(match["bits"] or match["width"])
        return Int(name, bits // 8, signed=match["sign"] == "s" or match["un"] == "")
    if name in {"bool", "_Bool"}:
        return Int(name, 1, boolean=True)
    if name in {"float", "double"}:
        return Float(name, 4 if name == "float" else 8)
    words = [word for word in name.split() if word not in {"unsigned", "signed"}]
    plain = " ".join(word for word in words if word != "int" or len(words) == 1) or "int"
    if plain not in SIZES:
        return None
    return Int(name, SIZES[plain], signed="unsigned" not in name)


def _up(at: int, to: int) -> int:
    return (at + to - 1) // to * to

"""The events of a BCC source, as BCC describes them: ``"pid#u32"``, ``"comm#char[16]"``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_bpf.kernel.c_types import Array, Float, Int, Member, Pointer, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.kernel.c_types import Type

SIZES = {"char": 1, "short": 2, "int": 4, "long": 8, "long long": 8}
FIXED = re.compile(r"_*(?P<sign>[us])(?P<bits>8|16|32|64)|(?P<un>u?)int(?P<width>8|16|32|64)_t")
MEMBER = re.compile(r"(?P<name>\w+)#(?P<type>[^\[]+?)\s*(?P<counts>(?:\[\d+\])*)")


def struct_of(name: str, members: Iterable[str]) -> Struct | None:
    """Return the struct that has these members, laid out as C does; None without or with others.

    BCC does not describe structs within structs.
    """
    at, widest, found = 0, 1, []
    for described in members:
        parts = MEMBER.fullmatch(described)
        of = _type(parts["type"].strip()) if parts else None
        if parts is None or of is None:
            return None
        alignment = of.size
        for count in reversed(re.findall(r"\d+", parts["counts"])):
            of = Array(of, int(count))
        at = _up(at, alignment)
        found.append(Member(parts["name"], of, 8 * at, 0))
        at, widest = at + of.size, max(widest, alignment)
    return Struct(name, _up(at, widest), tuple(found), union=False) if found else None


def _type(name: str) -> Type | None:
    if name.endswith("*"):
        return Pointer()
    if found := FIXED.fullmatch(name):
        bits = int(found["bits"] or found["width"])
        return Int(name, bits // 8, signed=found["sign"] == "s" or found["un"] == "")
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

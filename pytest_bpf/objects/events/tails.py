"""Events shorter or longer than their struct: what part of the type they have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_bpf.kernel.btf.c_types import Array, Struct

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf.c_types import Member, Type


def flexible_member(c_type: Type) -> Member | None:
    """Return a last member that is an array without a length, ``char rest[]``."""
    last = _last_array(c_type)
    return last if last and isinstance(last.type, Array) and not last.type.count else None


def min_size(c_type: Type) -> int:
    """Return how many bytes a whole event has at least: a flexible last member may have none."""
    tail = flexible_member(c_type)
    return tail.bit_offset // 8 if tail else c_type.size


def fit(c_type: Type, length: int) -> Type:
    """Return the type as it is in ``length`` bytes.

    A flexible last member has the rest. Of a type that is longer, the members that end within the
    length are left, and the elements of an array that do.
    """
    if not isinstance(c_type, Struct) or (length >= c_type.size and not flexible_member(c_type)):
        return c_type
    last = _last_array(c_type)
    members = [
        _cut(member, length) if member is last else member
        for member in c_type.members
        if 8 * length >= member.bit_offset + (0 if member is last else _bits(member))
    ]
    return replace(c_type, size=length, members=tuple(members))


def _cut(member: Member, length: int) -> Member:
    assert isinstance(member.type, Array)
    room = max(length - member.bit_offset // 8, 0) // member.type.element.size
    count = min(room, member.type.count) if member.type.count else room
    return replace(member, type=replace(member.type, count=count))


def _bits(member: Member) -> int:
    return member.bit_size or 8 * member.type.size


def _last_array(c_type: Type) -> Member | None:
    last = c_type.members[-1] if isinstance(c_type, Struct) and c_type.members else None
    if last is None or getattr(c_type, "union", False):
        return None
    return last if isinstance(last.type, Array) and last.type.element.size else None

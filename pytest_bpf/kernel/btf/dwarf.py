"""The types in an object's DWARF, for what its BTF does not tell.

BTF has only the types of maps, globals and functions, and clang before 15 wrote no sign of enums.
The DWARF of the same object (``-g``) has both. It is parsed by pyelftools, at the first question.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError, UnknownNameError, near_matches
from pytest_bpf.kernel.btf.c_types import (
    Array,
    Enumeration,
    Float,
    Int,
    Member,
    Opaque,
    Pointer,
    Struct,
    Type,
    alias,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elftools.dwarf.die import DIE

_PREFIX = "DW_TAG_"

_LOOK_THROUGH = frozenset(
    {"typedef", "const_type", "volatile_type", "restrict_type", "atomic_type"}
)

_TAGS = {
    "struct": ("structure_type",),
    "union": ("union_type",),
    "enum": ("enumeration_type",),
    "": ("typedef", "structure_type", "union_type", "enumeration_type", "base_type"),
}
"""The tags that a keyword stands for; without one the first that has the name wins."""

_BOOLEAN, _FLOAT, _SIGNED, _SIGNED_CHAR = 2, 4, 5, 6
"""``DW_ATE_*``: how a base type is encoded."""


@dataclass(frozen=True)
class Local:
    """A parameter or local variable: its type, or what it points to when it is a ``pointer``."""

    name: str
    type: Type
    pointer: bool


@lru_cache(maxsize=16)
def read_dwarf(content: bytes) -> Dwarf:
    """Return the DWARF of an object file's content; kept, and parsed when it is first asked."""
    return Dwarf(content)


class Dwarf:
    """The C types of one object by name, as `pytest_bpf.kernel.btf.c_types` values.

    Every method raises `LoadError` when the DWARF is damaged; an object without any has no types.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._types: dict[int, Type] = {}
        self._resolving: set[int] = set()

    @property
    def empty(self) -> bool:
        """Whether the object has no DWARF: it was compiled without ``-g``, or stripped."""
        return not self._index

    def names(self, keyword: str) -> set[str]:
        """Return the names of all ``"struct"``, ``"union"`` or ``"enum"``; of any type for ``""``.

        A type that is only declared has no name here.
        """
        return {name for tag in _TAGS[keyword] for name in self._index.get(tag, {})}

    def find(self, name: str) -> Type:
        """Return a type by its C name: ``"struct event"``, ``"event_t"``, ``"unsigned int"``.

        Raises `UnknownNameError` with the near matches.
        """
        keyword, _, bare = name.strip().rpartition(" ")
        if keyword not in _TAGS:
            keyword, bare = "", name.strip()
        for tag in _TAGS[keyword]:
            if bare in self._index.get(tag, {}):
                return self._guarded(self._index[tag][bare])
        if self.empty:
            raise UnknownNameError(
                f"there is no type {name!r}: the object has no DWARF; compile it with -g"
            )
        hint = near_matches(bare, self.names(keyword))
        raise UnknownNameError(f"there is no type {name!r} in the DWARF{hint}")

    def enumeration(self, name: str, enumerators: tuple[str, ...]) -> Enumeration | None:
        """Return the enum with this name ("" for none) and these enumerators, with its sign."""
        return self._enumerations.get((name, enumerators))

    def variables(self, function: str, address: int) -> list[Local]:
        """Return the parameters and local variables of a function that are in scope at an address.

        The address is in bytes from the start of the function's section.
        """
        try:
            return [
                local
                for die in self._functions.get(function, [])
                if _covers(die, address)
                for local in self._locals(die, address)
            ]
        except LoadError:
            raise
        except Exception as error:  # noqa: BLE001 (pyelftools raises all kinds on damaged data)
            raise _damaged(error) from None

    # -- inside ------------------------------------------------------------------------------

    @cached_property
    def _index(self) -> dict[str, dict[str, DIE]]:
        """The entries of complete types by tag and name."""
        index: dict[str, dict[str, DIE]] = {}
        for die in self._dies:
            if (name := _name(die)) and "DW_AT_declaration" not in die.attributes:
                index.setdefault(_tag(die), {}).setdefault(name, die)
        return index

    @cached_property
    def _enumerations(self) -> dict[tuple[str, tuple[str, ...]], Enumeration]:
        enumerations = {}
        for die in self._dies:
            if _tag(die) == "enumeration_type":
                c_type = self._guarded(die)
                assert isinstance(c_type, Enumeration)
                enumerations[c_type.name, tuple(name for name, _ in c_type.members)] = c_type
        return enumerations

    @cached_property
    def _functions(self) -> dict[str, list[DIE]]:
        """The entries of functions that have code, by name."""
        functions: dict[str, list[DIE]] = {}
        for die in self._dies:
            if _tag(die) == "subprogram" and "DW_AT_low_pc" in die.attributes:
                functions.setdefault(_name(_origin(die)), []).append(die)
        return functions

    def _locals(self, scope: DIE, address: int) -> Iterator[Local]:
        for die in scope.iter_children():
            tag = _tag(die)
            if tag in {"lexical_block", "inlined_subroutine"} and _covers(die, address):
                yield from self._locals(die, address)
            elif tag in {"variable", "formal_parameter"}:
                origin = _origin(die)
                pointer = origin.get_DIE_from_attribute("DW_AT_type")
                while _tag(pointer) in _LOOK_THROUGH and "DW_AT_type" in pointer.attributes:
                    pointer = pointer.get_DIE_from_attribute("DW_AT_type")
                indirect = _tag(pointer) == "pointer_type"
                c_type = self._target(pointer) if indirect else self._type(pointer)
                yield Local(_name(origin), c_type, pointer=indirect)

    @cached_property
    def _dies(self) -> list[DIE]:
        """The entries of types and functions, in the order of the object."""
        if not self._content:
            return []
        from elftools.elf.elffile import ELFFile  # noqa: PLC0415 (30 ms, and only for who asks)

        tags = frozenset(tag for tags in _TAGS.values() for tag in tags) | {"subprogram"}
        try:
            elf = ELFFile(io.BytesIO(self._content))
            if not elf.has_dwarf_info():
                return []
            # BPF objects have REL: offsets stand in place, and those of sections add nothing
            dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
            units = dwarf.iter_CUs()
            return [die for unit in units for die in unit.iter_DIEs() if _tag(die) in tags]
        except Exception as error:  # noqa: BLE001 (pyelftools raises all kinds on damaged data)
            raise _damaged(error) from None

    def _guarded(self, die: DIE) -> Type:
        try:
            return self._type(die)
        except LoadError:
            raise
        except Exception as error:  # noqa: BLE001 (pyelftools raises all kinds on damaged data)
            raise _damaged(error) from None

    def _type(self, die: DIE) -> Type:
        if die.offset not in self._types:
            if die.offset in self._resolving:
                raise LoadError(f"the DWARF is damaged: {_name(die) or 'a type'!r} contains itself")
            self._resolving.add(die.offset)
            try:
                self._types[die.offset] = self._resolve(die)
            finally:
                self._resolving.discard(die.offset)
        return self._types[die.offset]

    def _target(self, die: DIE) -> Type:
        """Return what ``DW_AT_type`` of an entry names; ``void`` where it has none."""
        if "DW_AT_type" not in die.attributes:
            return Opaque("void", 0)
        return self._type(die.get_DIE_from_attribute("DW_AT_type"))

    def _resolve(self, die: DIE) -> Type:
        tag, name, size = _tag(die), _name(die), _number(die, "byte_size")
        if tag in _LOOK_THROUGH:
            target = self._target(die)
            return alias(name, target) if tag == "typedef" else target
        if tag == "base_type":
            encoding = _number(die, "encoding")
            if encoding == _FLOAT:
                return Float(name, size)
            signed = encoding in {_SIGNED, _SIGNED_CHAR}
            return Int(name, size, signed=signed, boolean=encoding == _BOOLEAN)
        if tag == "pointer_type":
            return Pointer()
        if tag == "array_type":
            return self._array(die)
        if tag in {"structure_type", "union_type"} and "DW_AT_declaration" not in die.attributes:
            members = tuple(self._members(die, size))
            return Struct(name, size, members, union=tag == "union_type")
        if tag == "enumeration_type":
            return self._enumeration(die, name, size)
        return Opaque(name, size)

    def _array(self, die: DIE) -> Type:
        c_type = self._target(die)
        dimensions = [child for child in die.iter_children() if _tag(child) == "subrange_type"]
        for dimension in reversed(dimensions):
            count = _number(dimension, "count")
            if "DW_AT_upper_bound" in dimension.attributes:
                count = _number(dimension, "upper_bound") + 1
            c_type = Array(c_type, count)
        return c_type

    def _enumeration(self, die: DIE, name: str, size: int) -> Enumeration:
        underlying = self._target(die)
        members = tuple(
            (_name(child), _number(child, "const_value"))
            for child in die.iter_children()
            if _tag(child) == "enumerator"
        )
        signed = getattr(underlying, "signed", False) or any(value < 0 for _, value in members)
        return Enumeration(name, size, signed, members)

    def _members(self, die: DIE, size: int) -> Iterator[Member]:
        for child in die.iter_children():
            if _tag(child) != "member":
                continue
            c_type, bits = self._target(child), _number(child, "bit_size")
            member = Member(_name(child), c_type, _bit_offset(child, c_type, bits), bits)
            if member.bit_offset + (bits or 8 * c_type.size) > 8 * size:
                raise LoadError(
                    f"the DWARF is damaged: {member.name!r} reaches past the end of {_name(die)!r}"
                )
            yield member


def _bit_offset(member: DIE, c_type: Type, bits: int) -> int:
    """Return where a member begins, in bits from the start of its struct."""
    if "DW_AT_data_bit_offset" in member.attributes:
        return _number(member, "data_bit_offset")
    start = 8 * _number(member, "data_member_location")
    if "DW_AT_bit_offset" not in member.attributes:
        return start
    from_top = _number(member, "bit_offset")
    if sys.byteorder == "big":
        return start + from_top
    return start + 8 * (_number(member, "byte_size") or c_type.size) - from_top - bits


def _origin(die: DIE) -> DIE:
    """Return the entry that has the name and type: that of the source, for an inlined copy."""
    while "DW_AT_abstract_origin" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_abstract_origin")
    return die


def _covers(die: DIE, address: int) -> bool:
    """Say whether the code of an entry may contain an address; several ranges are not looked at."""
    low, high = die.attributes.get("DW_AT_low_pc"), die.attributes.get("DW_AT_high_pc")
    if low is None or high is None:
        return True
    end = high.value if high.form == "DW_FORM_addr" else low.value + high.value
    return bool(low.value <= address < end)


def _tag(die: DIE) -> str:
    return str(die.tag or "").removeprefix(_PREFIX)


def _name(die: DIE) -> str:
    value: Any = getattr(die.attributes.get("DW_AT_name"), "value", b"")
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _number(die: DIE, attribute: str) -> int:
    """Return an attribute that is a number; 0 where the entry has none."""
    value: Any = die.attributes.get(f"DW_AT_{attribute}")
    return int(value.value) if value is not None and isinstance(value.value, int) else 0


def _damaged(error: Exception) -> LoadError:
    return LoadError(f"the DWARF is damaged: {str(error) or type(error).__name__}")

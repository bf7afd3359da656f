"""BTF types, read from an object or from the running kernel.

The reading is libbpf's (``btf__type_by_id``); this module turns ``struct btf_type`` of
``uapi/linux/btf.h`` into the values of :mod:`pytest_bpf.kernel.btf.c_types`.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import threading
import weakref
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError, UnavailableError, UnknownNameError, near_matches
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
    Variable,
    alias,
)
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.kernel.btf.dwarf import Dwarf
    from pytest_bpf.kernel.sys.info import MapInfo


__all__ = [
    "Array",
    "Btf",
    "Enumeration",
    "Float",
    "Int",
    "Kind",
    "Member",
    "Opaque",
    "Pointer",
    "Struct",
    "Type",
    "Variable",
    "btf_by_id",
    "map_types",
    "vmlinux",
]

MOST_NAMES = 50
"""How many names an error lists."""


class Kind(IntEnum):
    """``BTF_KIND_*`` of ``uapi/linux/btf.h``."""

    VOID, INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(12)
    FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)


@dataclass(frozen=True)
class _Raw:
    """One ``struct btf_type``; ``size`` is its ``size`` or ``type`` field."""

    name: str
    kind: Kind
    vlen: int
    flag: bool
    size: int
    address: int


class _Resolving(threading.local):
    """The types that a thread is resolving; another may be at the same ones at the same time."""

    def __init__(self) -> None:
        self.ids: set[int] = set()


class Btf:
    """The types of an object or of the kernel, read through libbpf's ``struct btf *``.

    The pointer is borrowed: whoever made it frees it. ``dwarf`` is that of the same object: it
    tells the values of enums that old compilers wrote without their sign.
    """

    def __init__(self, pointer: int, dwarf: Dwarf | None = None) -> None:
        self._pointer = pointer
        self.dwarf = dwarf
        self._types: dict[int, Type] = {}
        self._resolving = _Resolving()

    def type(self, type_id: int) -> Type:
        """Return the type with this id; typedefs and qualifiers are looked through.

        Raises `LoadError` for what no compiler makes: no such id, a type that contains itself.
        """
        if type_id not in self._types:
            resolving = self._resolving.ids
            if type_id in resolving:
                raise LoadError(f"the BTF is damaged: type {type_id} contains itself")
            resolving.add(type_id)
            try:
                self._types.setdefault(type_id, self._resolve(type_id))
            finally:
                resolving.discard(type_id)
        return self._types[type_id]

    def name(self, type_id: int) -> str:
        """Return a type's own name, without its keyword; empty when it has none."""
        return self._raw(type_id).name

    def find(self, name: str) -> Type:
        """Return a type by its C name: ``"struct event"``, ``"event_t"``, ``"unsigned int"``.

        Raises `UnknownNameError` with the near matches.
        """
        keyword, _, bare = name.strip().rpartition(" ")
        kinds = _KEYWORDS.get(keyword, (Kind.INT,))
        if keyword not in _KEYWORDS:
            bare = name.strip()
        for kind in kinds:
            type_id = libbpf.function("btf__find_by_name_kind")(self._pointer, bare.encode(), kind)
            if type_id > 0 and bare:
                return self.type(type_id)
        names = {raw.name for raw in self._all() if raw.kind in kinds and raw.name}
        hint = near_matches(bare, names)
        if len(names) > MOST_NAMES and hint.startswith("; there are"):
            hint = f", which has {len(names)} of that kind"
        raise UnknownNameError(f"there is no type {name!r} in the BTF{hint}")

    def variables(self, section: str) -> tuple[Variable, ...]:
        """Return the global variables of a section (``".rodata"``); none where there is no such."""
        number = libbpf.function("btf__find_by_name_kind")(
            self._pointer, section.encode(), Kind.DATASEC
        )
        return tuple(self._variables(self._raw(number))) if number > 0 else ()

    def functions(self) -> list[str]:
        """Return the names of the functions."""
        return [raw.name for raw in self._all() if raw.kind is Kind.FUNC]

    def attachable(self) -> list[str]:
        """Return the names of the functions, and of the tracepoints as ``btf_trace_NAME``."""
        return [
            raw.name
            for raw in self._all()
            if raw.kind is Kind.FUNC or raw.name.startswith("btf_trace_")
        ]

    def first_parameter(self, function: str) -> Type | None:
        """Return what the first parameter of ``function`` points to: a program's context."""
        type_id = libbpf.function("btf__find_by_name_kind")(
            self._pointer, function.encode(), Kind.FUNC
        )
        if type_id <= 0:
            return None
        proto = self._raw(self._raw(type_id).size)
        if proto.kind is not Kind.FUNC_PROTO or not proto.vlen:
            return None
        return self.pointee(self._words(proto, 2)[1])

    def tracepoint_arguments(self, tracepoint: str) -> int:
        """Return how many arguments a tracepoint of the kernel has; 0 when it is not there."""
        name = f"btf_trace_{tracepoint}".encode()
        type_id = libbpf.function("btf__find_by_name_kind")(self._pointer, name, Kind.TYPEDEF)
        if type_id <= 0:
            return 0
        proto = self._raw(self._raw(self._raw(type_id).size).size)
        return max(0, proto.vlen - 1) if proto.kind is Kind.FUNC_PROTO else 0

    def pointee(self, type_id: int) -> Type | None:
        """Return what a pointer type points to, or None when ``type_id`` is no pointer."""
        self.type(type_id)  # a chain without an end is refused here
        raw = self._raw(type_id)
        while raw.kind in _LOOK_THROUGH:
            raw = self._raw(raw.size)
        return self.type(raw.size) if raw.kind is Kind.PTR else None

    @cached_property
    def global_pointees(self) -> list[Type]:
        """What the global pointer variables point to.

        ``const struct event *unused __attribute__((unused));`` is how a source keeps in the BTF
        a type that only its functions use.
        """
        return [c_type for _, c_type, pointer in self.global_variables if pointer]

    @cached_property
    def global_variables(self) -> list[tuple[str, Type, bool]]:
        """The global variables: name, type or what it points to, whether it is a pointer."""
        variables = [raw for raw in self._all() if raw.kind is Kind.VAR]
        pointees = [self.pointee(raw.size) for raw in variables]
        return [
            (raw.name, pointee or self.type(raw.size), pointee is not None)
            for raw, pointee in zip(variables, pointees, strict=True)
        ]

    def _all(self) -> Iterator[_Raw]:
        count = libbpf.function("btf__type_cnt")(self._pointer)
        return (self._raw(type_id) for type_id in range(count))

    def _raw(self, type_id: int) -> _Raw:
        if type_id == 0:
            return _Raw("void", Kind.VOID, 0, False, 0, 0)
        address = libbpf.function("btf__type_by_id")(self._pointer, type_id)
        if not address:
            raise LoadError(f"the BTF is damaged: it has no type {type_id}")
        name, info, size = struct.unpack("=III", ctypes.string_at(address, 12))
        kind = Kind((info >> 24) & 0x1F)
        return _Raw(self._name(name), kind, info & 0xFFFF, bool(info >> 31), size, address)

    def text(self, offset: int) -> str:
        """Return the string at an offset of the string section: a file, or a line of source."""
        return self._name(offset)

    def _name(self, offset: int) -> str:
        name: bytes = libbpf.function("btf__name_by_offset")(self._pointer, offset) or b""
        return name.decode(errors="replace")

    def _words(self, raw: _Raw, count: int) -> tuple[int, ...]:
        """Return the ``count`` 32-bit words that follow a ``struct btf_type``."""
        return struct.unpack(f"={count}I", ctypes.string_at(raw.address + 12, 4 * count))

    def _resolve(self, type_id: int) -> Type:
        raw = self._raw(type_id)
        if raw.kind in _LOOK_THROUGH:
            target = self.type(raw.size)
            return alias(raw.name, target) if raw.kind is Kind.TYPEDEF else target
        if raw.kind is Kind.INT:
            encoding = (self._words(raw, 1)[0] >> 24) & 0xF
            return Int(raw.name, raw.size, signed=bool(encoding & 1), boolean=bool(encoding & 4))
        if raw.kind is Kind.FLOAT:
            return Float(raw.name, raw.size)
        if raw.kind is Kind.PTR:
            to = self._raw(raw.size) if raw.size else raw
            return Pointer(kptr=to.kind is Kind.TYPE_TAG and to.name in KPTRS)
        if raw.kind is Kind.ARRAY:
            element, _, count = self._words(raw, 3)
            return Array(self.type(element), count)
        if raw.kind in {Kind.STRUCT, Kind.UNION}:
            members = tuple(self._members(raw))
            return Struct(raw.name, raw.size, members, union=raw.kind is Kind.UNION)
        if raw.kind in {Kind.ENUM, Kind.ENUM64}:
            return self._enumeration(raw)
        return Opaque(raw.name, 0)

    def _members(self, raw: _Raw) -> Iterator[Member]:
        words = self._words(raw, 3 * raw.vlen)
        for at in range(0, len(words), 3):
            name_offset, type_id, offset = words[at : at + 3]
            bit_size, bit_offset = (offset >> 24, offset & 0xFFFFFF) if raw.flag else (0, offset)
            member = Member(self._name(name_offset), self.type(type_id), bit_offset, bit_size)
            if bit_offset + (bit_size or 8 * member.type.size) > 8 * raw.size:
                raise LoadError(
                    f"the BTF is damaged: {member.name!r} reaches past the end of {raw.name!r}"
                )
            yield member

    def _enumeration(self, raw: _Raw) -> Enumeration:
        """Return an enum; where BTF may have lost a sign or the upper half, as DWARF has it.

        clang before 15 sets no flag for signed enums and cuts 64-bit values to 32 bits.
        """
        members = tuple(self._enumerators(raw))
        doubtful = raw.size > 4 or any(value >= 1 << 31 for _, value in members)
        if raw.kind is Kind.ENUM and not raw.flag and doubtful and self.dwarf is not None:
            names = tuple(name for name, _ in members)
            try:
                complete = self.dwarf.enumeration(raw.name, names)
            except LoadError:  # damaged: as if it had none
                complete = None
            if complete is not None and complete.size == raw.size:
                return complete
        return Enumeration(raw.name, raw.size, raw.flag, members)

    def _enumerators(self, raw: _Raw) -> Iterator[tuple[str, int]]:
        wide = raw.kind is Kind.ENUM64
        words = self._words(raw, (3 if wide else 2) * raw.vlen)
        for at in range(0, len(words), 3 if wide else 2):
            value = words[at + 1] | (words[at + 2] << 32 if wide else 0)
            bits = 64 if wide else 32
            negative = raw.flag and value >> (bits - 1)
            yield self._name(words[at]), value - (1 << bits) if negative else value

    def _variables(self, section: _Raw) -> Iterator[Variable]:
        words = self._words(section, 3 * section.vlen)
        for at in range(0, len(words), 3):
            type_id, offset, size = words[at : at + 3]
            variable = self._raw(type_id)
            if variable.kind is not Kind.VAR:
                continue
            c_type = self.type(variable.size)
            yield Variable(
                variable.name, c_type if c_type.size <= size else Opaque("", size), offset, size
            )


KPTRS = frozenset({"kptr", "kptr_untrusted", "percpu_kptr"})
"""Tags of pointers that the kernel keeps in a map."""

_LOOK_THROUGH = frozenset(
    {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG, Kind.DECL_TAG}
)
_KEYWORDS = {
    "struct": (Kind.STRUCT,),
    "union": (Kind.UNION,),
    "enum": (Kind.ENUM, Kind.ENUM64),
    "": (Kind.TYPEDEF, Kind.STRUCT, Kind.UNION, Kind.INT, Kind.ENUM, Kind.FLOAT, Kind.ENUM64),
}


@libbpf.per_library
def vmlinux() -> Btf:
    """Return the running kernel's types; parsed once a process, and kept.

    Raises `UnavailableError` when the kernel was built without BTF.
    """
    try:
        return Btf(libbpf.call("btf__load_vmlinux_btf"))
    except OSError as error:
        raise UnavailableError(
            f"this kernel's BTF cannot be read ({error.strerror}); "
            "it needs CONFIG_DEBUG_INFO_BTF=y and /sys mounted"
        ) from None


def btf_by_id(number: int) -> Btf | None:
    """Return the types of a program or map that was made elsewhere, by its ``btf_id``.

    None where it has none (0), or where they went with it.
    """
    if not number:
        return None
    try:
        pointer = libbpf.call("btf__load_from_kernel_by_id", number)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return None
    btf = Btf(pointer)
    weakref.finalize(btf, libbpf.function("btf__free"), pointer)
    return btf


def map_types(btf: Btf | None, info: MapInfo) -> tuple[Type | None, Type | None]:
    """Return the key and value types that a map has in its BTF; None where it has none."""
    if btf is None or not info.btf_key_type_id:
        return None, None
    return btf.type(info.btf_key_type_id), btf.type(info.btf_value_type_id)

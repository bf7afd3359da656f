"""Which type the programs of an object write to a map, as their code and debug information say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel.btf.c_types import Struct
from pytest_bpf.kernel.btf.dwarf import Local
from pytest_bpf.objects import elf
from pytest_bpf.objects.events.tails import flexible_member, min_size
from pytest_bpf.objects.events.writes import MAP_SECTIONS, find_writes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_bpf.kernel.btf.c_types import Type
    from pytest_bpf.objects.events.writes import Write
    from pytest_bpf.objects.types import Types

LINES = 4
"""How many lines of source before a call may prepare its arguments."""

CALL = re.compile(r"\w*(?:output|reserve|submit|send|dynptr_write|dynptr_data)\w*\s*\([^;]*")
ASSIGNED = re.compile(r"(\w+)\s*=[^=;]*$")

DYNPTR = "bpf_dynptr"
"""A struct that stands for a record, and is none."""

WORD = re.compile(r"[A-Za-z_]\w*")


def inferred_types(types: Types, map_name: str) -> list[Type]:
    """Return the different types of the events that programs write to a map; [] when unclear.

    Reads the object's code, and its DWARF for what the code does not decide.
    """
    writes = _writes(types, map_name)
    sizes = {write.size for write in writes}
    declared = {c_type for c_type in _pointees(types) if _may_have(c_type, sizes)}
    if len(declared) == 1:
        return list(declared)
    by_size = [(write.size, _type(types, write)) for write in writes]
    distinct = _distinct(c_type for _, c_type in by_size if c_type)
    unclear = {size for size, c_type in by_size if c_type is None and size is not None}
    return distinct if len(distinct) != 1 or unclear <= {distinct[0].size} else []


def writes_short(types: Types, map_name: str, c_type: Type) -> bool:
    """Say whether a program writes only the first bytes of this type to a map."""
    return any(
        (write.size is None or write.size < c_type.size) and _same(_type(types, write), c_type)
        for write in _writes(types, map_name)
    )


def _writes(types: Types, map_name: str) -> list[Write]:
    """Return what the programs that are loaded write to a map, and the functions that they call."""
    return [
        write
        for write in find_writes(types.content)
        if write.map == map_name and write.function not in types.not_loaded
    ]


def _pointees(types: Types) -> list[Struct]:
    """Return what ``const struct event *unused`` and its like point to."""
    pointees = types.btf.global_pointees if types.btf else []
    return [c_type for c_type in pointees if isinstance(c_type, Struct)]


def _may_have(c_type: Type, sizes: set[int | None]) -> bool:
    """Say whether an event of the type may have one of the sizes; None is any."""
    if not sizes or None in sizes or c_type.size in sizes:
        return True
    return flexible_member(c_type) is not None and any(
        size is not None and size >= min_size(c_type) for size in sizes
    )


def _type(types: Types, write: Write) -> Type | None:
    """Return the type of what one call writes, None when more than one may be meant.

    It is that of a variable: of the one that the call names, else of the only local one with its
    size, else of the one that the lines before name.
    """
    try:
        local = types.dwarf.variables(write.function, 8 * write.at)
    except LoadError:
        return None
    variables = [*local, *_globals(types)]
    structs = [
        v for v in variables if isinstance(v.type, Struct) and v.type.size and v.type.name != DYNPTR
    ]
    exact = [v for v in structs if v.type.size == write.size]
    fits = exact or [v for v in structs if _may_have(v.type, {write.size})]
    scalars = [v for v in variables if v.type.size == write.size and not v.pointer]
    in_call, before = _names(types, write)
    if one := _only((fits, scalars, structs), in_call):
        return one
    of_size = _distinct(v.type for v in exact if v in local)
    return of_size[0] if len(of_size) == 1 else _only((fits, scalars), before)


def _globals(types: Types) -> list[Local]:
    """Return the global variables, without maps, and what those point to that are pointers."""
    if types.btf is None:
        return []
    maps = {symbol.name for symbol in elf.symbols(types.content) if symbol.section in MAP_SECTIONS}
    return [Local(*variable) for variable in types.btf.global_variables if variable[0] not in maps]


def _only(groups: Iterable[Sequence[Local]], steps: Iterable[set[str]]) -> Type | None:
    """Return the only type of the variables of a group that a step names: the first that has."""
    for names in steps:
        for group in groups:
            chosen = _distinct(v.type for v in group if v.name in names)
            if len(chosen) == 1:
                return chosen[0]
    return None


def _names(types: Types, write: Write) -> tuple[list[set[str]], list[set[str]]]:
    """Return the words in the argument and in the call, and in its line with more lines before."""
    lines = [
        line.text
        for line in elf.source_lines(types.content)
        if line.section == write.section and line.start <= write.at
    ]
    call = CALL.search(lines[-1]) if lines else None
    arguments = call[0].partition("(")[2].split(",") if call else []
    in_call: list[set[str]] = []
    others: set[str] = set()
    if write.data is not None:
        if len(arguments) >= write.data:
            in_call.append(set(WORD.findall(arguments[write.data - 1])))
        arguments[write.data - 1 : write.data] = []
        others = set(WORD.findall(",".join(arguments)))
    in_call.append(set(WORD.findall(call[0] if call else "")) - others)
    if write.data is None and call:  # room: what the pointer to it is assigned to
        in_call.append(set(ASSIGNED.findall(call.string[: call.start()])))
    counts = range(1, LINES + 1)
    return in_call, [set(WORD.findall(" ".join(lines[-n:]))) - others for n in counts]


def _distinct(types: Iterable[Type]) -> list[Type]:
    distinct: list[Type] = []
    for c_type in types:
        if not any(_same(c_type, other) for other in distinct):
            distinct.append(c_type)
    return distinct


def _same(one: Type | None, other: Type) -> bool:
    """Say whether two types are one: BTF and DWARF write some parts of it differently."""
    return one is not None and (type(one), getattr(one, "name", ""), one.size) == (
        type(other),
        getattr(other, "name", ""),
        other.size,
    )

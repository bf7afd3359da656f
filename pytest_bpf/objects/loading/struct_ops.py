"""Maps of struct_ops none of whose functions is loaded: left out, for libbpf may die of them.

Such a map needs the kernel's BTF. libbpf before 1.4 reads that for programs alone, and follows a
null pointer where it was not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.kernel.btf.enums import MAP_TYPES
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.objects.identity import program_type

if TYPE_CHECKING:
    from collections.abc import Iterable

KIND = "struct_ops"
FIRST_SAFE = (1, 4)


def leave_out(maps: Iterable[int], programs: Iterable[int]) -> list[str]:
    """Leave out the struct_ops maps of an open object when it loads none of their functions.

    ``maps`` and ``programs`` are libbpf's pointers. Returns the names of maps without any function,
    which this libbpf can only leave out.
    """
    type_of, name_of = libbpf.function("bpf_map__type"), libbpf.function("bpf_map__name")
    tables = [table for table in maps if type_of(table) == MAP_TYPES.index(KIND)]
    if not tables:
        return []
    functions = [program for program in programs if program_type(program) == KIND]
    safe = tuple(map(int, libbpf.version().split("."))) >= FIRST_SAFE
    loaded = libbpf.function("bpf_program__autoload")
    if any(map(loaded, functions)) or (safe and not functions):
        return []
    for table in tables:
        libbpf.call("bpf_map__set_autocreate", table, False)
        if not safe:  # it looks at them all the same, unless they are of another kind
            libbpf.call("bpf_map__set_type", table, MAP_TYPES.index("array"))
    return [] if functions else [name_of(table).decode(errors="replace") for table in tables]

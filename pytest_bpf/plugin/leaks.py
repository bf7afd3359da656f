"""What a test left open, and how that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.kernel.btf.enums import map_type_name, program_type_name
from pytest_bpf.kernel.sys.descriptors import (
    SERVANTS,
    objects_open_in_children,
    objects_open_in_daemons,
    open_objects,
)
from pytest_bpf.kernel.sys.ids import open_while
from pytest_bpf.kernel.sys.info import MapInfo, ProgramInfo, read_info

if TYPE_CHECKING:
    from collections.abc import Collection


def held_by_test(test: str, earlier: set[int], made: set[str]) -> set[str]:
    """Return what this process, those below it and the daemons of a test hold open.

    ``earlier`` are the processes that there were before; ``made`` is what this process loaded.
    """
    ours = open_objects() - SERVANTS
    return ours | objects_open_in_children() | objects_open_in_daemons(earlier, test, made)


def message(test: str, left: Collection[str]) -> str:
    """Return the sentence of the warning: what was left open, by id, name and type."""
    names = ", ".join(_with_name(each) for each in sorted(left))
    text = f"{test} left open: {names}; close what it opened"
    if any(" in process " in each for each in left):
        text += ", and end the processes that it started"
    return text


def _with_name(thing: str) -> str:
    """Return ``"map 12 'counts' (hash)"`` for ``"map 12"``, whatever stands behind the id."""
    kind, number, *where = thing.split(" ", 2)
    return " ".join([kind, number, *_name_and_type(kind, int(number)), *where])


def _name_and_type(kind: str, number: int) -> list[str]:
    try:
        if kind == "map":
            with open_while("map", number) as fd:
                if fd is not None:
                    map_ = read_info(fd, MapInfo)
                    return [repr(map_.name.decode()), f"({map_type_name(map_.type)})"]
        if kind == "program":
            with open_while("prog", number) as fd:
                if fd is not None:
                    program = read_info(fd, ProgramInfo)
                    return [repr(program.name.decode()), f"({program_type_name(program.type)})"]
    except OSError:  # without the privilege to open what it holds by id
        pass
    return []

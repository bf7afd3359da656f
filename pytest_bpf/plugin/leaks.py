"""What a test left open, and how that is said."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.btf.enums import map_type_name, program_type_name
from pytest_bpf.kernel.sys.descriptors import (
    SERVANTS,
    descendants,
    objects_open_in_children,
    objects_open_in_daemons,
    open_objects,
)
from pytest_bpf.kernel.sys.ids import Kind, open_while
from pytest_bpf.kernel.sys.info import MapInfo, ProgramInfo, read_info

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

INFO: dict[str, tuple[Kind, type[Any], Callable[[int], str]]] = {
    "map": ("map", MapInfo, map_type_name),
    "program": ("prog", ProgramInfo, program_type_name),
}
"""What has a name and a type: its kind in libbpf's names, its info, and how its type is called."""


def held_by_test(test: str, earlier: set[int], made: set[str]) -> set[str]:
    """Return what this process, those below it and the daemons of a test hold open.

    ``earlier`` are the processes that there were before; ``made`` is what this process loaded.
    """
    ours, below = open_objects() - SERVANTS, descendants()
    others = objects_open_in_children(below) | objects_open_in_daemons(earlier, below, test, made)
    return ours | others


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
    if kind not in INFO:
        return []
    ids, info, type_name = INFO[kind]
    with suppress(OSError), open_while(ids, number) as fd:  # not by everybody
        if fd is not None:
            found = read_info(fd, info)
            return [repr(found.name.decode()), f"({type_name(found.type)})"]
    return []

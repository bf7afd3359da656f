"""Looking for a program or a map of the whole machine by what is known of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnknownNameError, near_matches
from pytest_bpf.kernel import btf
from pytest_bpf.kernel.btf.enums import map_type_name, program_type_name
from pytest_bpf.kernel.sys import ids
from pytest_bpf.kernel.sys.info import MapInfo, ProgramInfo, map_ids, read_info
from pytest_bpf.objects.identity import full_name
from pytest_bpf.objects.maps.map import Map
from pytest_bpf.objects.programs.program import Program
from pytest_bpf.objects.search.inventory import take_inventory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.kernel.btf import Btf
    from pytest_bpf.kernel.sys.ids import Kind

NAME_LENGTH = 15
"""How many characters of a name the kernel keeps."""

MOST_MATCHES = 5
"""How many matches an error lists."""


@dataclass(frozen=True)
class Criteria:
    """What is known of the one that is looked for: all that is given must hold."""

    name: str | None = None
    id: int | None = None
    tag: str | None = None
    pid: int | None = None

    def __str__(self) -> str:
        criteria = {
            "called": repr(self.name) if self.name else None,
            "with id": self.id,
            "with tag": self.tag,
            "held by process": self.pid,
        }
        return " ".join(f"{word} {value}" for word, value in criteria.items() if value is not None)


@dataclass(frozen=True)
class Match:
    """A program or map that is there: ``kind`` is its type by libbpf's name."""

    id: int
    name: str
    kind: str


def find_program(
    name: str | None = None,
    *,
    id: int | None = None,  # noqa: A002 (the kernel's word)
    tag: str | None = None,
    pinned: str | os.PathLike[str] | None = None,
    pid: int | None = None,
) -> Program:
    """Return the one program that is loaded and has all of this, whoever loaded it.

    ``name`` is its function's, ``tag`` 16 hex digits, ``pinned`` a path on a bpf file system,
    ``pid`` a process that holds it, a link of it or a perf event with it. Raises
    `UnknownNameError` when there is none, with the near matches, and when there are several.
    """
    if pinned is not None:
        fd = ids.by_pin("prog", pinned)
        _refuse_more(fd, (name, id, tag, pid))
        return Program.from_fd(fd)
    match = _single_match("prog", Criteria(name, id, tag, pid))
    return Program.from_fd(ids.by_id("prog", match.id))


def find_map(
    name: str | None = None,
    *,
    id: int | None = None,  # noqa: A002 (the kernel's word)
    pinned: str | os.PathLike[str] | None = None,
    pid: int | None = None,
) -> Map:
    """Return the one map that exists and has all of this, whoever made it; see `find_program`."""
    if pinned is not None:
        fd = ids.by_pin("map", pinned)
        _refuse_more(fd, (name, id, pid))
    else:
        fd = ids.by_id("map", _single_match("map", Criteria(name, id, pid=pid)).id)
    return Map.from_fd(fd, btf=_types_of_users(fd))


def _single_match(kind: Kind, query: Criteria) -> Match:
    word = ids.WORDS[kind]
    if not str(query):
        raise UnknownNameError(f"say which {word}: its name=, id=, tag=, pinned= or pid=")
    look = _program if kind == "prog" else _map
    everything = [m for m in map(look, _candidates(kind, query)) if m is not None]
    matches = [m for m in everything if query.name is None or _matches_name(m, query.name)]
    if query.tag is not None:
        matches = [m for m in matches if _tag(m.id) == query.tag]
    if len(matches) == 1:
        return matches[0]
    if matches:
        shown = ", ".join(
            f"id {m.id} ({m.name or 'no name'}, {m.kind})" for m in matches[:MOST_MATCHES]
        )
        more = f" and {len(matches) - MOST_MATCHES} more" if len(matches) > MOST_MATCHES else ""
        raise UnknownNameError(
            f"there are {len(matches)} {word}s {query}: {shown}{more}; say which one by id="
        )
    hint = near_matches(query.name, {m.name for m in everything if m.name}) if query.name else ""
    raise UnknownNameError(f"there is no {word} {query} in the kernel{hint}")


def _candidates(kind: Kind, query: Criteria) -> Iterable[int]:
    if query.id is not None and query.pid is None:
        return [query.id] if query.id > 0 else []
    if query.pid is None:
        return list(ids.every(kind))
    inventory = take_inventory([query.pid])
    ids_of_process = inventory.programs if kind == "prog" else inventory.maps
    return sorted(n for n in ids_of_process if query.id in {None, n})


def _program(number: int) -> Match | None:
    with ids.open_while("prog", number) as fd:
        if fd is None:
            return None
        info = read_info(fd, ProgramInfo)
        name = info.name.decode(errors="replace")
        if len(name) == NAME_LENGTH:
            name = full_name(fd, info, btf.btf_by_id(info.btf_id))
        return Match(number, name, program_type_name(info.type))


def _map(number: int) -> Match | None:
    with ids.open_while("map", number) as fd:
        if fd is None:
            return None
        info = read_info(fd, MapInfo)
        return Match(number, info.name.decode(errors="replace"), map_type_name(info.type))


def _matches_name(match: Match, name: str) -> bool:
    return match.name == name or (
        len(match.name) == NAME_LENGTH and match.name == name[:NAME_LENGTH]
    )


def _tag(number: int) -> str:
    with ids.open_while("prog", number) as fd:
        return "" if fd is None else bytes(read_info(fd, ProgramInfo).tag).hex()


def _types_of_users(map_fd: int) -> Btf | None:
    """Return the types of a program that uses a map: the kernel takes none for buffers' own."""
    info = read_info(map_fd, MapInfo)
    if info.btf_id:
        return None
    for number in ids.every("prog"):
        with ids.open_while("prog", number) as fd:
            if fd is not None and info.id in map_ids(fd):
                types = btf.btf_by_id(read_info(fd, ProgramInfo).btf_id)
                if types is not None:
                    return types
    return None


def _refuse_more(fd: int, given: tuple[object, ...]) -> None:
    if any(value is not None for value in given):
        os.close(fd)
        raise UnknownNameError("pinned= says which one by itself: leave the others out")

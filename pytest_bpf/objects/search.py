"""Looking for a program or a map of the whole machine by what is known of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError, UnknownNameError, near_matches
from pytest_bpf.kernel import btf, ids
from pytest_bpf.kernel.info import MapInfo, ProgramInfo, map_ids, read_info
from pytest_bpf.objects import found
from pytest_bpf.objects.inventory import inventory
from pytest_bpf.objects.layout import kind_name
from pytest_bpf.objects.loaded import type_name
from pytest_bpf.objects.map import Map
from pytest_bpf.objects.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.kernel.btf import Btf
    from pytest_bpf.kernel.ids import Kind

KEPT = 15
"""How many characters of a name the kernel keeps."""

SHOWN = 5
"""How many matches an error lists."""


@dataclass(frozen=True)
class Wanted:
    """What is known of the one that is looked for: all that is given must hold."""

    name: str | None = None
    id: int | None = None
    tag: str | None = None
    pid: int | None = None

    def __str__(self) -> str:
        told = {
            "called": repr(self.name) if self.name else None,
            "with id": self.id,
            "with tag": self.tag,
            "held by process": self.pid,
        }
        return " ".join(f"{word} {value}" for word, value in told.items() if value is not None)


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
        fd = found.by_pin("prog", pinned)
        _no_others(fd, (name, id, tag, pid))
        return Program.found(fd)
    match = _only("prog", Wanted(name, id, tag, pid))
    return Program.found(found.by_id("prog", match.id))


def find_map(
    name: str | None = None,
    *,
    id: int | None = None,  # noqa: A002 (the kernel's word)
    pinned: str | os.PathLike[str] | None = None,
    pid: int | None = None,
) -> Map:
    """Return the one map that exists and has all of this, whoever made it; see `find_program`."""
    if pinned is not None:
        fd = found.by_pin("map", pinned)
        _no_others(fd, (name, id, pid))
    else:
        fd = found.by_id("map", _only("map", Wanted(name, id, pid=pid)).id)
    return Map.found(fd, btf=_types_of_users(fd))


def _only(kind: Kind, wanted: Wanted) -> Match:
    word = found.WORDS[kind]
    if not str(wanted):
        raise UnknownNameError(f"say which {word}: its name=, id=, tag=, pinned= or pid=")
    look = _program if kind == "prog" else _map
    everything = [m for m in map(look, _candidates(kind, wanted)) if m is not None]
    matches = [m for m in everything if wanted.name is None or _called(m, wanted.name)]
    if wanted.tag is not None:
        matches = [m for m in matches if _tag(m.id) == wanted.tag]
    if len(matches) == 1:
        return matches[0]
    if matches:
        shown = ", ".join(f"id {m.id} ({m.name or 'no name'}, {m.kind})" for m in matches[:SHOWN])
        more = f" and {len(matches) - SHOWN} more" if len(matches) > SHOWN else ""
        raise UnknownNameError(
            f"there are {len(matches)} {word}s {wanted}: {shown}{more}; say which one by id="
        )
    hint = near_matches(wanted.name, {m.name for m in everything if m.name}) if wanted.name else ""
    raise UnknownNameError(f"there is no {word} {wanted} in the kernel{hint}")


def _candidates(kind: Kind, wanted: Wanted) -> Iterable[int]:
    if wanted.id is not None and wanted.pid is None:
        return [wanted.id] if wanted.id > 0 else []
    if wanted.pid is None:
        try:
            return list(ids.every(kind))
        except OSError as error:
            raise UnavailableError(
                f"what is in the kernel cannot be listed ({error.strerror}): it needs "
                "CAP_SYS_ADMIN; run as root"
            ) from None
    there = inventory([wanted.pid])
    held = there.programs if kind == "prog" else there.maps
    return sorted(n for n in held if wanted.id in {None, n})


def _program(number: int) -> Match | None:
    with ids.borrowed("prog", number) as fd:
        if fd is None:
            return None
        info = read_info(fd, ProgramInfo)
        name = info.name.decode(errors="replace")
        if len(name) == KEPT:
            name = found.full_name(fd, info, btf.in_kernel(info.btf_id))
        return Match(number, name, type_name(info.type))


def _map(number: int) -> Match | None:
    with ids.borrowed("map", number) as fd:
        if fd is None:
            return None
        info = read_info(fd, MapInfo)
        return Match(number, info.name.decode(errors="replace"), kind_name(info.type))


def _called(match: Match, name: str) -> bool:
    return match.name == name or (len(match.name) == KEPT and match.name == name[:KEPT])


def _tag(number: int) -> str:
    with ids.borrowed("prog", number) as fd:
        return "" if fd is None else bytes(read_info(fd, ProgramInfo).tag).hex()


def _types_of_users(map_fd: int) -> Btf | None:
    """Return the types of a program that uses a map: the kernel takes none for buffers' own."""
    info = read_info(map_fd, MapInfo)
    if info.btf_id:
        return None
    for number in ids.every("prog"):
        with ids.borrowed("prog", number) as fd:
            if fd is not None and info.id in map_ids(fd):
                types = btf.in_kernel(read_info(fd, ProgramInfo).btf_id)
                if types is not None:
                    return types
    return None


def _no_others(fd: int, given: tuple[object, ...]) -> None:
    if any(value is not None for value in given):
        os.close(fd)
        raise UnknownNameError("pinned= says which one by itself: leave the others out")

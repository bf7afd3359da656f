"""An agent's programs, maps and links: seen while it runs, opened by their ids, gone at its end."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_bpf.agents.process import POLL_INTERVAL
from pytest_bpf.kernel import btf
from pytest_bpf.kernel.sys import ids
from pytest_bpf.kernel.sys.info import ProgramInfo, RawLinkInfo, read_info
from pytest_bpf.objects import Link, Map, Program
from pytest_bpf.objects.link.info import link_type
from pytest_bpf.objects.search.inventory import Inventory, take_inventory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_bpf.kernel.sys.ids import Kind

UNLOAD_TIMEOUT = 2.0
"""Seconds the kernel may take to free what an agent had loaded."""

T = TypeVar("T", Program, Map, Link)


class AgentObjects:
    """The programs, maps and links of an inventory, by name; `close` closes their descriptors.

    Links are not held open, so that the agent can detach what it attached. What has gone meanwhile
    is left out. The types of events are those of the programs, where the map has none.
    """

    def __init__(self, inventory: Inventory) -> None:
        programs = [Program.from_fd(fd) for fd in _open_all("prog", inventory.programs)]
        self._own_links: list[Link] = []
        for program in programs:
            program.keep_link = self._own_links.append
        program_names = {program.id: program.name for program in programs}
        types = next(filter(None, (_types(program) for program in programs)), None)
        self.programs = _by_name(programs)
        self.maps = _by_name([Map.from_fd(fd, types) for fd in _open_all("map", inventory.maps)])
        links = [_link(fd, program_names) for fd in _open_all("link", inventory.links)]
        links += [
            Link.watch(0, program_names[event.program], event.target)
            for event in inventory.events
            if event.program in program_names
        ]
        self.links = _by_name(links)

    def close(self) -> None:
        """Close the descriptors; the agent keeps its own. What was attached here is detached."""
        for link in self._own_links:
            link.detach()
        everything: tuple[dict[str, Any], ...] = (self.links, self.maps, self.programs)
        for values in everything:
            for value in values.values():
                value.close()


class History:
    """All programs and maps that an agent was ever seen with.

    ``before`` are those that were in the kernel before it started.
    """

    def __init__(self, before: Mapping[Kind, set[int]]) -> None:
        self._before = before
        self._seen: dict[Kind, set[int]] = {"prog": set(), "map": set()}

    def look(self, pids: Iterable[int]) -> Inventory:
        """Return what processes have open now, and remember it."""
        now = take_inventory(pids)
        self._seen["prog"] |= now.programs
        self._seen["map"] |= now.maps
        return now

    def leftovers(self) -> list[str]:
        """Return, once the kernel had time to free them, those that it still has."""
        deadline = time.monotonic() + UNLOAD_TIMEOUT
        own = {kind: numbers - self._before[kind] for kind, numbers in self._seen.items()}
        while left := [(kind, n) for kind in own for n in sorted(own[kind]) if ids.exists(kind, n)]:
            if time.monotonic() > deadline:
                return [f"{ids.WORDS[kind]} {n}" for kind, n in left]
            time.sleep(POLL_INTERVAL)
        return []


def in_kernel() -> dict[Kind, set[int]]:
    """Return the ids of all programs and maps in the kernel."""
    return {"prog": set(ids.every("prog")), "map": set(ids.every("map"))}


def program_names(programs: Iterable[int]) -> list[str]:
    """Return the names of programs by their ids, sorted."""
    names = []
    for fd in _open_all("prog", programs):
        program = Program.from_fd(fd)
        names.append(program.name)
        program.close()
    return sorted(names)


def _open_all(kind: Kind, numbers: Iterable[int]) -> Iterator[int]:
    for number in sorted(numbers):
        try:
            yield ids.open_id(kind, number)
        except OSError as error:
            if error.errno != errno.ENOENT:  # it has gone meanwhile
                raise


def _types(program: Program) -> btf.Btf | None:
    return btf.btf_by_id(read_info(program.fd, ProgramInfo).btf_id)


def _link(fd: int, program_names: dict[int, str]) -> Link:
    try:
        info = read_info(fd, RawLinkInfo)
    finally:
        os.close(fd)
    program = program_names.get(info.prog_id, f"program {info.prog_id}")
    return Link.watch(info.id, program, link_type(info.type))


def _by_name(values: Iterable[T]) -> dict[str, T]:
    """Return values by name; a second one of a name is ``"name#2"``."""
    by_name: dict[str, T] = {}
    for value in values:
        plain = value.program if isinstance(value, Link) else value.name
        name, number = plain, 2
        while name in by_name:
            name, number = f"{plain}#{number}", number + 1
        by_name[name] = value
    return by_name

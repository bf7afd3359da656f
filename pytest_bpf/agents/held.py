"""An agent's programs, maps and links as values, opened by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pytest_bpf.kernel import btf, ids
from pytest_bpf.kernel.info import LinkInfo, ProgramInfo, read_info
from pytest_bpf.objects import Link, Map, Program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_bpf.kernel.ids import Kind
    from pytest_bpf.objects.inventory import Inventory

LINK_TYPES = (
    *("unspec", "raw_tracepoint", "tracing", "cgroup", "iter", "netns", "xdp", "perf_event"),
    *("kprobe_multi", "struct_ops", "netfilter", "tcx", "uprobe_multi", "netkit"),
)
"""``enum bpf_link_type``."""

T = TypeVar("T", Program, Map, Link)


class Held:
    """What an inventory lists, opened; `close` lets go of it.

    What has gone meanwhile is left out. The types of events are those of the programs, where the
    map has none.
    """

    def __init__(self, listed: Inventory) -> None:
        opened = [Program.found(fd) for fd in _opened("prog", listed.programs)]
        self._made_here: list[Link] = []
        for program in opened:
            program.attached = self._made_here.append
        named = {program.id: program.name for program in opened}
        types = next(filter(None, (_types(program) for program in opened)), None)
        self.programs = _by_name(opened)
        self.maps = _by_name([Map.found(fd, types) for fd in _opened("map", listed.maps)])
        links = [_link(fd, named) for fd in _opened("link", listed.links)]
        links += [
            Link.found(-1, named[event.program], event.target)
            for event in listed.events
            if event.program in named
        ]
        self.links = _by_name(links)

    def close(self) -> None:
        """Let go; the agent keeps it. What was attached here is detached."""
        for link in self._made_here:
            link.detach()
        everything: tuple[dict[str, Any], ...] = (self.links, self.maps, self.programs)
        for values in everything:
            for value in values.values():
                value.close()


def names(programs: Iterable[int]) -> list[str]:
    """Return the names of programs by their ids, sorted."""
    found = []
    for fd in _opened("prog", programs):
        program = Program.found(fd)
        found.append(program.name)
        program.close()
    return sorted(found)


def _opened(kind: Kind, numbers: Iterable[int]) -> Iterator[int]:
    for number in sorted(numbers):
        try:
            yield ids.opened(kind, number)
        except OSError:  # it has gone meanwhile
            continue


def _types(program: Program) -> btf.Btf | None:
    return btf.in_kernel(read_info(program.fd, ProgramInfo).btf_id)


def _link(fd: int, named: dict[int, str]) -> Link:
    info = read_info(fd, LinkInfo)
    kind = LINK_TYPES[info.type] if info.type < len(LINK_TYPES) else str(info.type)
    return Link.found(fd, named.get(info.prog_id, f"program {info.prog_id}"), kind)


def _by_name(values: Iterable[T]) -> dict[str, T]:
    """Return values by name; a second one of a name is ``"name#2"``."""
    found: dict[str, T] = {}
    for value in values:
        plain = value.program if isinstance(value, Link) else value.name
        name, again = plain, 2
        while name in found:
            name, again = f"{plain}#{again}", again + 1
        found[name] = value
    return found

"""What of BPF processes hold, and what of it is attached."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.kernel.btf.enums import program_type_name
from pytest_bpf.kernel.sys import ids
from pytest_bpf.kernel.sys.descriptors import PerfAttachment, objects_open_in, perf_attachments
from pytest_bpf.kernel.sys.info import ProgramInfo, RawLinkInfo, map_ids, read_info
from pytest_bpf.kinds.programs import types_with

if TYPE_CHECKING:
    from collections.abc import Iterable

ATTACHED_UNSEEN = types_with("unseen")
"""Types that can be attached without the process holding what attaches them."""


@dataclass(frozen=True)
class Inventory:
    """Ids of ``programs``, ``maps`` and ``links``, and what is attached by perf events."""

    programs: frozenset[int] = frozenset()
    maps: frozenset[int] = frozenset()
    links: frozenset[int] = frozenset()
    events: tuple[PerfAttachment, ...] = ()

    def idle_programs(self) -> set[int]:
        """Return the programs that nothing holds attached, as far as that can be seen."""
        attached = {event.program for event in self.events} | set(map(program_of, self.links))
        return {n for n in self.programs - attached if _type(n) not in ATTACHED_UNSEEN}


def take_inventory(pids: Iterable[int]) -> Inventory:
    """Return what processes hold; those that are gone hold nothing."""
    held: set[tuple[str, int]] = set()
    events: list[PerfAttachment] = []
    for pid in pids:
        held |= objects_open_in(pid)
        events += perf_attachments(pid)
    links = {n for kind, n in held if kind == "link"}
    programs = {n for kind, n in held if kind == "program"}
    programs |= {event.program for event in events} | {program_of(n) for n in links}
    programs.discard(0)
    maps = {n for kind, n in held if kind == "map"}
    for number in programs:
        with ids.open_while("prog", number) as fd:
            maps.update(map_ids(fd) if fd is not None else ())
    return Inventory(frozenset(programs), frozenset(maps), frozenset(links), tuple(events))


def is_asleep(pids: Iterable[int]) -> bool:
    """Say whether every thread of these processes waits for something to happen."""
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                state = (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                if state not in {"S", "Z"}:
                    return False
    return True


def program_of(link: int) -> int:
    """Return the id of a link's program, 0 when the link is gone."""
    with ids.open_while("link", link) as fd:
        return 0 if fd is None else int(read_info(fd, RawLinkInfo).prog_id)


def _type(program: int) -> str:
    with ids.open_while("prog", program) as fd:
        return "" if fd is None else program_type_name(read_info(fd, ProgramInfo).type)

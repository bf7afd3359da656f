"""What all programs and maps of the machine do between two looks at them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel import btf
from pytest_bpf.kernel.btf.enums import map_type_name, program_type_name
from pytest_bpf.kernel.sys import ids
from pytest_bpf.kernel.sys.info import MapInfo, ProgramInfo, memlock, read_info
from pytest_bpf.objects.identity import full_name
from pytest_bpf.objects.search.attachments import attach_points

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME_LENGTH = 15
"""How many characters of a name the kernel keeps; of longer ones the BTF has the rest."""


@dataclass(frozen=True)
class ProgramActivity:
    """What a program did in a span of time.

    ``runs`` and ``run_time_ns`` are those of the span; ``ns_per_run`` is their quotient, ``cpu``
    the share of one CPU that they took (0.02 is 2 %), ``runs_per_second`` the rate. ``memory`` and
    ``machine_code`` are in bytes, the latter 0 where it is interpreted. ``attached`` are the places
    that it is attached to, where somebody asked for them (`with_attach_points`).
    """

    id: int
    name: str
    type: str
    runs: int
    run_time_ns: int
    runs_per_second: float
    ns_per_run: float
    cpu: float
    memory: int
    machine_code: int
    attached: tuple[str, ...] = ()


@dataclass(frozen=True)
class MapActivity:
    """A map, and the bytes of memory that the kernel accounts to it."""

    id: int
    name: str
    type: str
    max_entries: int
    memory: int


@dataclass(frozen=True)
class Activity:
    """What the machine's programs did in ``seconds``, the busiest first, and the largest maps."""

    seconds: float
    programs: tuple[ProgramActivity, ...]
    maps: tuple[MapActivity, ...]

    @property
    def cpu(self) -> float:
        """The share of one CPU that all programs took."""
        return sum(program.cpu for program in self.programs)

    @property
    def memory(self) -> int:
        """The bytes that all programs and maps take."""
        programs = sum(program.memory for program in self.programs)
        return programs + sum(one.memory for one in self.maps)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "cpu": self.cpu, "memory": self.memory}


@dataclass(frozen=True)
class Look:
    """What the kernel says of all programs at one time, ``at`` in seconds of a steady clock."""

    at: float
    programs: Mapping[int, ProgramActivity]
    maps: tuple[MapActivity, ...]


def look() -> Look:
    """Read what the kernel knows of every program and map.

    Raises `PrivilegeError` when this process may not list them. The kernel counts runs only
    while statistics are on: see `pytest_bpf.kernel.programs.run_time_stats`.
    """
    programs = {program.id: program for program in _programs()}
    return Look(time.monotonic(), programs, tuple(_maps()))


def between(before: Look, after: Look) -> Activity:
    """Return what the programs of ``after`` did since ``before``; new ones since they were loaded.

    A program that is gone is not in it. The kernel's counters never fall.
    """
    seconds = after.at - before.at
    programs = [
        _since(before.programs.get(number), now, seconds) for number, now in after.programs.items()
    ]
    programs.sort(key=lambda program: (-program.run_time_ns, -program.runs, program.id))
    maps = sorted(after.maps, key=lambda one: (-one.memory, one.id))
    return Activity(seconds, tuple(programs), tuple(maps))


def with_attach_points(activity: Activity) -> Activity:
    """Return the same with the places where programs are attached, as far as the kernel tells."""
    points = attach_points()
    programs = tuple(
        replace(program, attached=points.get(program.id, ())) for program in activity.programs
    )
    return replace(activity, programs=programs)


def _since(before: ProgramActivity | None, now: ProgramActivity, seconds: float) -> ProgramActivity:
    runs = now.runs - (before.runs if before else 0)
    run_time_ns = now.run_time_ns - (before.run_time_ns if before else 0)
    return ProgramActivity(
        now.id,
        now.name,
        now.type,
        runs=runs,
        run_time_ns=run_time_ns,
        runs_per_second=runs / seconds,
        ns_per_run=run_time_ns / runs if runs else 0.0,
        cpu=run_time_ns / (seconds * 1e9),
        memory=now.memory,
        machine_code=now.machine_code,
    )


def _programs() -> Iterator[ProgramActivity]:
    for number in ids.every("prog"):
        with ids.open_while("prog", number) as fd:
            if fd is not None:
                info = read_info(fd, ProgramInfo)
                name = info.name.decode(errors="replace")
                if len(name) == NAME_LENGTH:
                    name = full_name(fd, info, btf.btf_by_id(info.btf_id))
                yield ProgramActivity(
                    number,
                    name,
                    program_type_name(info.type),
                    runs=info.run_cnt,
                    run_time_ns=info.run_time_ns,
                    runs_per_second=0.0,
                    ns_per_run=0.0,
                    cpu=0.0,
                    memory=memlock(fd),
                    machine_code=info.jited_prog_len,
                )


def _maps() -> Iterator[MapActivity]:
    for number in ids.every("map"):
        with ids.open_while("map", number) as fd:
            if fd is not None:
                info = read_info(fd, MapInfo)
                name = info.name.decode(errors="replace")
                kind = map_type_name(info.type)
                yield MapActivity(number, name, kind, info.max_entries, memlock(fd))

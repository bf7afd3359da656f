"""What all programs and maps of the machine do between two looks at them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import btf, ids
from pytest_bpf.kernel.info import MapInfo, ProgramInfo, memlock, read_info
from pytest_bpf.objects.found import full_name
from pytest_bpf.objects.layout import kind_name
from pytest_bpf.objects.loaded import type_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEPT = 15
"""How many characters of a name the kernel keeps; of longer ones the BTF has the rest."""


@dataclass(frozen=True)
class ProgramActivity:
    """What a program did in a span of time.

    ``runs`` and ``run_time_ns`` are those of the span; ``ns_per_run`` is their quotient, ``cpu``
    the share of one CPU that they took (0.02 is 2 %), ``runs_per_second`` the rate. ``memory`` and
    ``machine_code`` are in bytes, the latter 0 where it is interpreted.
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

    Raises `UnavailableError` when this process may not list them. The kernel counts runs only
    while statistics are on: see `pytest_bpf.costs.statistics`.
    """
    try:
        programs = {program.id: program for program in _programs()}
        return Look(time.monotonic(), programs, tuple(_maps()))
    except PermissionError as error:
        raise UnavailableError(
            f"what is in the kernel cannot be listed ({error.strerror}): it needs CAP_SYS_ADMIN; "
            "run as root"
        ) from None


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


def _since(before: ProgramActivity | None, now: ProgramActivity, seconds: float) -> ProgramActivity:
    runs = now.runs - (before.runs if before else 0)
    spent = now.run_time_ns - (before.run_time_ns if before else 0)
    return ProgramActivity(
        now.id,
        now.name,
        now.type,
        runs=runs,
        run_time_ns=spent,
        runs_per_second=runs / seconds,
        ns_per_run=spent / runs if runs else 0.0,
        cpu=spent / (seconds * 1e9),
        memory=now.memory,
        machine_code=now.machine_code,
    )


def _programs() -> Iterator[ProgramActivity]:
    for number in ids.every("prog"):
        with ids.borrowed("prog", number) as fd:
            if fd is not None:
                info = read_info(fd, ProgramInfo)
                name = info.name.decode(errors="replace")
                if len(name) == KEPT:
                    name = full_name(fd, info, btf.in_kernel(info.btf_id))
                yield ProgramActivity(
                    number,
                    name,
                    type_name(info.type),
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
        with ids.borrowed("map", number) as fd:
            if fd is not None:
                info = read_info(fd, MapInfo)
                name = info.name.decode(errors="replace")
                kind = kind_name(info.type)
                yield MapActivity(number, name, kind, info.max_entries, memlock(fd))

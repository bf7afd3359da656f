"""What the measurements need of an agent, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psutil

    from pytest_bpf.agents.log import Log
    from pytest_bpf.objects import Map, Program


class Subject(Protocol):
    """Processes that hold programs and maps, and print."""

    name: str
    pid: int
    printed: Log
    programs: Mapping[str, Program]
    maps: Mapping[str, Map]

    @property
    def output(self) -> str:
        """What it printed so far."""

    @property
    def processes(self) -> list[psutil.Process]:
        """The first process and its children."""

    def pids(self) -> list[int]:
        """Return the ids of the processes."""

    def cpu_seconds(self) -> float:
        """Return the CPU time of the processes, in seconds."""

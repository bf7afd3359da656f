"""Memory of an agent: its processes', its maps' and programs', its perf buffers'."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.costs.figures.map_memory import map_memory

if TYPE_CHECKING:
    from pytest_bpf.agents.subject import Subject

PERF_BUFFER = "anon_inode:[perf_event]"


def memory(agent: Subject) -> int:
    """Return bytes, now: of its processes, of its maps and programs, of perf buffers.

    Of the first process all that is resident counts (RSS), of the others what they have alone
    (USS), so that what they share counts once, and what else runs on the machine changes nothing.
    Perf buffers are in no figure of the kernel's: their mappings are counted. Raises
    `UnavailableError` where the memory of a map cannot be told.
    """
    maps = sum(map_memory(m).kernel for m in agent.maps.values())
    programs = sum(p.memlock + p.prog_size_jited for p in agent.programs.values())
    return maps + programs + _processes(agent)


def _processes(agent: Subject) -> int:
    import psutil  # noqa: PLC0415 (only who looks at processes needs it)

    total = 0
    for process in agent.processes:
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            first = process.pid == agent.pid
            total += process.memory_info().rss if first else process.memory_full_info().uss
            total += _perf_buffers(process.pid)
    return total


def _perf_buffers(pid: int) -> int:
    """Return the bytes of perf buffers that are mapped and not resident by the kernel's count."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        field, _, rest = line.partition(":")
        if "-" in field and not field[0].isupper():
            inside = line.endswith(PERF_BUFFER)
        elif inside and field in {"Size", "Rss"}:
            kilobytes = int(rest.split()[0])
            total += (kilobytes if field == "Size" else -kilobytes) << 10
    return total

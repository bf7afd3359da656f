"""Memory of an agent: its processes', its maps' and programs', its perf buffers'."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.costs.map_memory import map_memory

if TYPE_CHECKING:
    from pytest_bpf.agents.agent import Agent

PERF_BUFFER = "anon_inode:[perf_event]"


def memory(agent: Agent) -> int:
    """Return bytes, now: of its processes (PSS), of its maps and programs, of perf buffers.

    What processes share is counted once (the proportional set size adds up to what there is). Perf
    buffers are in no figure of the kernel's: their mappings are counted. Raises `UnavailableError`
    where the memory of a map cannot be told.
    """
    maps = sum(map_memory(made).kernel for made in agent.maps.values())
    programs = sum(p.memlock + p.prog_size_jited for p in agent.programs.values())
    return maps + programs + _processes(agent)


def _processes(agent: Agent) -> int:
    import psutil  # noqa: PLC0415 (only who looks at processes needs it)

    total = 0
    for process in agent.processes:
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            total += process.memory_full_info().pss + _perf_buffers(process.pid)
    return total


def _perf_buffers(pid: int) -> int:
    """Return the bytes of perf buffers that are mapped and not in the PSS."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        field, _, rest = line.partition(":")
        if "-" in field and not field[0].isupper():
            inside = line.endswith(PERF_BUFFER)
        elif inside and field in {"Size", "Pss"}:
            kilobytes = int(rest.split()[0])
            total += (kilobytes if field == "Size" else -kilobytes) << 10
    return total

"""When an agent counts as attached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.agents.objects import program_names

if TYPE_CHECKING:
    from pytest_bpf.objects.search.inventory import Inventory

QUIET, QUIET_UNATTACHED = 0.1, 0.5
"""Seconds for which nothing changes once it has attached all it holds, or not all."""


@dataclass(frozen=True)
class Readiness:
    """What to wait for: so many ``programs``, or those of these names, else that it rests.

    ``printed`` is a regular expression for its output that comes first, ``timeout`` in seconds.
    """

    programs: int | tuple[str, ...] | None = None
    printed: str | None = None
    timeout: float = 30.0

    def holds(self, now: Inventory, quiet: float) -> bool:
        """Say whether it is there, when nothing has changed for ``quiet`` seconds."""
        if isinstance(self.programs, int):
            return len(now.programs) >= self.programs and not now.idle_programs()
        if self.programs is not None:
            return (
                set(program_names(now.programs)) >= set(self.programs) and not now.idle_programs()
            )
        rest = QUIET_UNATTACHED if now.idle_programs() else QUIET
        return bool(now.programs) and quiet >= rest

    def shortfall(self, now: Inventory) -> str:
        """Return what it did not do, to go on with "within 30 s"."""
        names = program_names(now.programs)
        programs = f"it holds {', '.join(names)}" if names else "it holds none"
        if self.programs is not None:
            wanted = self.programs if isinstance(self.programs, int) else ", ".join(self.programs)
            return f"did not attach the programs it should ({wanted}; {programs})"
        if names:
            return f"never came to rest with its programs attached ({programs})"
        return "loaded no program"

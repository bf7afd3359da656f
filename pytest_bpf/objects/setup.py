"""How an object is to be loaded, beyond its file."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 (a dataclass field)
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_bpf.kernel import libbpf

LOG_SIZE = 1 << 16
"""Bytes for a program's statistics."""

FULL_LOG_SIZE = (1 << 24) - 1
"""Bytes for a whole log: the most that kernels before 6.4 take."""


@dataclass(frozen=True)
class Setup:
    """How an object is loaded, beyond its file; see `Object.load`."""

    globals: Mapping[str, Any] = field(default_factory=dict)
    max_entries: Mapping[str, int] = field(default_factory=dict)
    programs: frozenset[str] | None = None
    maps: Mapping[str, Any] = field(default_factory=dict)
    attach_to: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    log_level: int = libbpf.LOG_STATS
    log_size: int = LOG_SIZE

    @property
    def outline(self) -> str:
        """What of it libbpf's way through an object may depend on."""
        chosen = self.programs and sorted(self.programs)
        sizes = sorted(self.max_entries.items())
        return repr((chosen, sizes, *map(sorted, (self.globals, self.maps, self.attach_to))))

    def with_whole_log(self, program: str, level: int) -> Setup:
        """Return the same for one program, with its log instead of its statistics alone."""
        return replace(
            self,
            programs=frozenset({program}),
            attach_to={n: to for n, to in self.attach_to.items() if n == program},
            log_level=level | libbpf.LOG_STATS,
            log_size=FULL_LOG_SIZE,
        )

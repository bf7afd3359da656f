"""What came of the events: generated, delivered, lost, from one moment to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.costs.workload import EventCosts
from pytest_bpf.errors import MapError

if TYPE_CHECKING:
    from pytest_bpf.objects import Map, Object


class _Counts(NamedTuple):
    consumed: int = 0
    pending: int = 0
    lost: int | None = 0
    why_not: str = ""


class Flow:
    """Counts the events of an object's ring and perf buffers that have a reader.

    ``lost`` names the global variable, or by map the variables, in which the programs count what
    found no room. One that has no reader at the beginning counts from when it has one.
    """

    def __init__(self, obj: Object, lost: str | dict[str, str] | None) -> None:
        self._obj = obj
        self._before: dict[str, _Counts] = {}
        buffers = {n: m for n, m in obj.maps.items() if m.type in {"ringbuf", "perf_event_array"}}
        self._maps = buffers
        by_map = dict.fromkeys(buffers, lost) if isinstance(lost, str) else lost or {}
        for name, variable in by_map.items():
            obj.maps[name]
            obj.globals[variable]
        self._variables = by_map

    def begin(self) -> None:
        """Remember what was counted before."""
        self._before = {name: self._counts(of) for name, of in self._maps.items()}

    def end(self, seconds: float) -> dict[str, EventCosts]:
        """Return what was counted since, by map; those without a reader are not among them."""
        return {
            name: self._since(name, self._counts(of), seconds)
            for name, of in self._maps.items()
            if of.reader is not None
        }

    def _since(self, name: str, after: _Counts, seconds: float) -> EventCosts:
        before = self._before[name]
        lost = None
        if before.lost is not None and after.lost is not None:
            lost = after.lost - before.lost
        pending = after.pending - before.pending
        delivered = after.consumed - before.consumed
        return EventCosts(name, seconds, delivered, pending, lost, after.why_not)

    def _counts(self, of: Map) -> _Counts:
        if of.reader is None:
            return _Counts(lost=self._counted(of))
        pending = 0
        try:
            pending = of.reader.pending
            lost = self._counted(of) if of.name in self._variables else of.reader.lost
        except MapError as error:
            return _Counts(of.reader.consumed, pending, None, str(error))
        return _Counts(of.reader.consumed, pending, lost)

    def _counted(self, of: Map) -> int:
        """Return what the program's own variable says, 0 without one."""
        name = self._variables.get(of.name)
        return int(self._obj.globals[name]) if name else 0

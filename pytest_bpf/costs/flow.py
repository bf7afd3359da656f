"""What happened to the events: generated, delivered, lost, from one moment to another."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.costs.latency import latency_of
from pytest_bpf.costs.workload import EventCosts
from pytest_bpf.errors import BpfError, MapError, with_article
from pytest_bpf.kinds.maps import EVENT_MAPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import EventArray, Map, Object


class _Counts(NamedTuple):
    consumed: int = 0
    pending: int = 0
    lost: int | None = 0
    why_not: str = ""


class EventFlow:
    """Counts the events of an object's ring and perf buffers that have a reader.

    ``lost`` names the global variable, or by map the variables, in which the programs count what
    did not fit; ``stamps`` the member, or by map the members, that have an event's time. One
    that has no reader at the beginning counts from when it has one.
    """

    def __init__(
        self,
        obj: Object,
        lost: str | dict[str, str] | None,
        stamps: str | dict[str, str] | None,
    ) -> None:
        self._obj = obj
        self._before: dict[str, _Counts] = {}
        self._maps = {
            name: bpf_map for name, bpf_map in obj.maps.items() if bpf_map.type in EVENT_MAPS
        }
        self._variables = self._by_map(lost)
        self._stamps = self._by_map(stamps)
        self._read: dict[str, list[EventArray]] = {name: [] for name in self._stamps}
        for variable in self._variables.values():
            obj.globals[variable]

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Remember what was counted before, and see what is read until the ``with`` ends."""
        with ExitStack() as stack:
            for name, read in self._read.items():
                stack.enter_context(self._maps[name].watching(read.append))
            self._before = {name: self._counts(bpf_map) for name, bpf_map in self._maps.items()}
            yield

    def end(self, seconds: float) -> dict[str, EventCosts]:
        """Return what was counted since, by map; those without a reader are not among them."""
        return {
            name: self._since(name, self._counts(bpf_map), seconds)
            for name, bpf_map in self._maps.items()
            if bpf_map.reader is not None
        }

    def _since(self, name: str, after: _Counts, seconds: float) -> EventCosts:
        before = self._before[name]
        lost = None
        if before.lost is not None and after.lost is not None:
            lost = after.lost - before.lost
        pending = after.pending - before.pending
        delivered = after.consumed - before.consumed
        read = self._read.get(name)
        delays = latency_of(read, self._stamps[name]) if read else None
        return EventCosts(name, seconds, delivered, pending, lost, after.why_not, delays)

    def _counts(self, bpf_map: Map) -> _Counts:
        if bpf_map.reader is None:
            return _Counts(lost=self._lost_by_variable(bpf_map))
        pending = 0
        try:
            pending = bpf_map.reader.pending
            lost = (
                self._lost_by_variable(bpf_map)
                if bpf_map.name in self._variables
                else bpf_map.reader.lost
            )
        except MapError as error:
            return _Counts(bpf_map.reader.consumed, pending, None, str(error))
        return _Counts(bpf_map.reader.consumed, pending, lost)

    def _by_map(self, names: str | dict[str, str] | None) -> dict[str, str]:
        """Return what was given for each buffer; raise for a map that is none."""
        if isinstance(names, str):
            return dict.fromkeys(self._maps, names)
        for name in names or {}:
            if self._obj.maps[name].type not in EVENT_MAPS:
                raise BpfError(
                    f"map {name!r} is {with_article(self._obj.maps[name].type)}: it has no events"
                )
        return names or {}

    def _lost_by_variable(self, bpf_map: Map) -> int:
        """Return what the program's own variable says, 0 without one."""
        name = self._variables.get(bpf_map.name)
        return int(self._obj.globals[name]) if name else 0

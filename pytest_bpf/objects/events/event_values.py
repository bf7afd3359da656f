"""What a reader of events gives: a list of typed values, or arrays."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_bpf.errors import MapError
from pytest_bpf.kernel.values.codec import c_name
from pytest_bpf.objects.events.event_types import SeveralTypes, decode
from pytest_bpf.objects.events.table import table
from pytest_bpf.objects.events.tails import fit, flexible_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np

    from pytest_bpf.kernel.btf.c_types import Type
    from pytest_bpf.kernel.ringbuf.rows import Records
    from pytest_bpf.objects.events.event_types import EventTypes


class Reading(NamedTuple):
    """How many ``events`` were read together, and when, in ns of ``time.monotonic_ns()``.

    The reader slept from ``asleep`` to ``woken``, ready to be woken by an event, and had them at
    ``read``. When it did not sleep, all three are the same.
    """

    events: int
    asleep: int
    woken: int
    read: int


class EventList(list[Any]):
    """The events of one `Events.read`, in order; ``readings`` says when they were read."""

    def __init__(
        self,
        events: Iterable[Any],
        name: str,
        lost: int | None,
        readings: Sequence[Reading] = (),
        source: EventArray | None = None,
    ) -> None:
        super().__init__(events)
        self.readings = readings
        self._source = source
        self._name = name
        self._lost = lost

    def __str__(self) -> str:
        """Return a table of the events, the first 40."""
        return table(self)

    def raw(self, index: int) -> bytes:
        """Return all bytes of one event that was read, also those after its type."""
        return self._events.raw(index)

    def rest(self, index: int) -> bytes:
        """Return the bytes of one event that follow its type; see `EventArray.rest`."""
        return self._events.rest(index)

    @property
    def lost(self) -> int:
        """How many events did not fit up to here; see `Events.lost`."""
        return require_loss(self._name, self._lost)

    @property
    def _events(self) -> EventArray:
        if self._source is None:
            raise MapError(f"{self._name!r}: these events were not read from a buffer")
        return self._source


CHUNK = 4096
"""How many events an `EventArray` makes objects of at a time: the processor's cache holds them."""


class EventArray:
    """The events of one `Events.read_array`, in order; ``readings`` says when they were read."""

    def __init__(
        self,
        records: Records,
        types: EventTypes,
        name: str,
        lost: int | None,
        readings: Sequence[Reading] = (),
    ) -> None:
        self.readings = readings
        self._records = records
        self._types = types
        self._name = name
        self._lost = lost

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Any]:
        """Yield the events as Python values, as `Events.read` has them; some thousand at a time."""
        c_type = self._types.one
        if c_type is None or self._records.shortest < c_type.size or flexible_member(c_type):
            yield from decode(self._types, self._records)
            return
        from pytest_bpf.kernel.values.columns import decode_all  # noqa: PLC0415

        for at in range(0, len(self), CHUNK):
            yield from decode_all(c_type, self.array[at : at + CHUNK])

    @cached_property
    def array(self) -> np.ndarray[Any, Any]:
        """All events, of shape ``(n,)`` and the dtype of their C type, as with `Map.snapshot`.

        What reaches past the type is left out, but a last member without a length (``char rest[]``)
        has that of the longest event. Events of unknown type are ``V<longest>``. Shorter ones are
        filled up with zeros. Raises `MapError` for events of several types; see `array_of`.
        """
        c_type = self._types.one
        if isinstance(self._types, SeveralTypes) and len(self):
            raise MapError(
                f"{self._name!r} has events of several types: take array_of('struct ...')"
            )
        return self._array(self._records, c_type)

    def array_of(self, name: str) -> np.ndarray[Any, Any]:
        """Return the events of one type, as ``array`` has them: of shape ``(n,)``, in order.

        Empty (of no dtype in particular) when there is none of that type.
        """
        chosen = self._types.types(self._records)
        places = [at for at, c_type in enumerate(chosen) if c_type and _matches(c_type, name)]
        c_type = chosen[places[0]] if places else None
        return self._array(self._records.select(places), c_type)

    @property
    def sizes(self) -> np.ndarray[Any, Any]:
        """How many bytes each event had, of shape ``(n,)``; perf buffers round them up."""
        return self._records.sizes()

    def raw(self, index: int) -> bytes:
        """Return all bytes of one event, also those after its type."""
        return self._records[index]

    def rest(self, index: int) -> bytes:
        """Return the bytes of one event that follow its type, empty when there are none.

        A program may put a packet there (``bpf_perf_event_output`` with a length in its flags).
        Perf buffers round the length of an event up to 4 more than a multiple of 8.
        """
        place = range(len(self._records))[index]
        raw = self._records[place]
        c_type = self._types.one or self._types.types(self._records.select([place]))[0]
        return raw[c_type.size :] if c_type and not flexible_member(c_type) else b""

    @property
    def lost(self) -> int:
        """How many events did not fit up to here; see `Events.lost`."""
        return require_loss(self._name, self._lost)

    def __repr__(self) -> str:
        return f"<EventArray of {len(self)} from {self._name}>"

    @staticmethod
    def _array(records: Records, c_type: Type | None) -> np.ndarray[Any, Any]:
        import numpy as np  # noqa: PLC0415 (it is imported by now)

        from pytest_bpf.kernel.values.dtypes import dtype  # noqa: PLC0415

        longest = records.longest
        if c_type is not None and flexible_member(c_type):
            c_type = fit(c_type, longest)
        return records.array(dtype(c_type) if c_type else np.dtype(f"V{longest}"))


def _matches(c_type: Type, name: str) -> bool:
    return name in {c_name(c_type), getattr(c_type, "name", "")}


def require_loss(name: str, lost: int | None) -> int:
    """Return how many events were lost; `MapError` when nobody counted them."""
    if lost is None:
        raise MapError(
            f"ring buffer {name!r} was full, so events may be lost, and the kernel does not count "
            "them: read sooner, enlarge it by max_entries=, or let the program count its failed "
            "reservations, and say where: events(failed=lambda: obj.globals['no_room'])"
        )
    return lost

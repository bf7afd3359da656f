"""What a reader of events gives: a list of typed values, or arrays."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_bpf.errors import MapError
from pytest_bpf.kernel.c_types import Array, Struct
from pytest_bpf.kernel.decoding import decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np

    from pytest_bpf.kernel.c_types import Member, Type
    from pytest_bpf.kernel.taken import Records


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
    ) -> None:
        super().__init__(events)
        self.readings = readings
        self._name = name
        self._lost = lost

    @property
    def lost(self) -> int:
        """How many events found no room up to here; see `Events.lost`."""
        return known(self._name, self._lost)


AT_ONCE = 4096
"""Of how many events an `EventArray` makes objects at a time: the processor's cache holds them."""


class EventArray:
    """The events of one `Events.read_array`, in order; ``readings`` says when they were read."""

    def __init__(
        self,
        records: Records,
        of: Type | None,
        name: str,
        lost: int | None,
        readings: Sequence[Reading] = (),
    ) -> None:
        self.readings = readings
        self._records = records
        self._type = of
        self._name = name
        self._lost = lost

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Any]:
        """Yield the events as Python values, as `Events.read` has them; some thousand at a time."""
        of = self._type
        if of is None or _tail(of) is not None:
            yield from typed(self._records, of)
            return
        from pytest_bpf.kernel.columns import decode_all  # noqa: PLC0415

        for at in range(0, len(self), AT_ONCE):
            yield from decode_all(of, self.array[at : at + AT_ONCE])

    @cached_property
    def array(self) -> np.ndarray[Any, Any]:
        """All events, of shape ``(n,)`` and the dtype of their C type, as with `Map.snapshot`.

        What reaches past the type is left out, but a last member without a length (``char rest[]``)
        has that of the longest event. Events of unknown type are ``V<longest>``. Shorter ones are
        filled up with zeros.
        """
        import numpy as np  # noqa: PLC0415 (it is imported by now)

        from pytest_bpf.kernel.dtypes import dtype  # noqa: PLC0415

        longest = self._records.longest
        of = grown(self._type, longest) if self._type else None
        return self._records.array(dtype(of) if of else np.dtype(f"V{longest}"))

    @property
    def sizes(self) -> np.ndarray[Any, Any]:
        """How many bytes each event had, of shape ``(n,)``; perf buffers round them up."""
        return self._records.sizes()

    def raw(self, index: int) -> bytes:
        """Return all bytes of one event, also those past its type."""
        return self._records[index]

    @property
    def lost(self) -> int:
        """How many events found no room up to here; see `Events.lost`."""
        return known(self._name, self._lost)

    def __repr__(self) -> str:
        return f"<EventArray of {len(self)} from {self._name}>"


class RawEvent(bytes):
    """An event whose type the object does not say."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"an event of unknown type has no member {name!r}: say its type by "
            "__type(value, struct ...) in the map, or by events('struct ...')"
        )


def typed(records: Records, of: Type | None) -> list[Any]:
    """Return records as Python values: of their type, or `RawEvent` when it is not known."""
    from pytest_bpf.kernel.columns import decode_all  # noqa: PLC0415
    from pytest_bpf.kernel.dtypes import dtype  # noqa: PLC0415

    if of is None:
        return [RawEvent(record) for record in records]
    if _tail(of) is None:
        return decode_all(of, records.array(dtype(of)))
    lengths = set(records.sizes().tolist())
    decoders = {length: decoder(grown(of, length)) for length in lengths}
    return [decoders[len(record)](record, 0) for record in records]


def shortest(of: Type) -> int:
    """Return how many bytes an event of this type has at least: its last member may have none."""
    tail = _tail(of)
    return tail.bit_offset // 8 if tail else of.size


def grown(of: Type, length: int) -> Type:
    """Return the type as it is in ``length`` bytes: a last member without a length has the rest."""
    tail = _tail(of)
    if tail is None:
        return of
    assert isinstance(of, Struct)
    assert isinstance(tail.type, Array)
    count = (length - tail.bit_offset // 8) // tail.type.element.size
    rest = replace(tail, type=replace(tail.type, count=count))
    return replace(of, size=length, members=(*of.members[:-1], rest))


def _tail(of: Type) -> Member | None:
    """Return a last member that is an array without a length, ``char rest[]``."""
    last = of.members[-1] if isinstance(of, Struct) and of.members and not of.union else None
    array = last.type if last else None
    return last if isinstance(array, Array) and not array.count and array.element.size else None


def known(name: str, lost: int | None) -> int:
    """Return how many events were lost; `MapError` when nobody counted them."""
    if lost is None:
        raise MapError(
            f"ring buffer {name!r} was full, so events may be lost, and the kernel does not count "
            "them: read sooner, enlarge it by max_entries=, or let the program count its failed "
            "reservations, and say where: events(failed=lambda: obj.globals['no_room'])"
        )
    return lost

"""Events from a ring or perf buffer as typed values, with what was lost counted."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pytest_bpf.errors import MapError
from pytest_bpf.kernel.btf import Btf, Struct, Type
from pytest_bpf.kernel.values import codec, spelled

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT = 0.05
"""Seconds after which a waiting reader looks by itself: programs may put out without waking it."""


class Buffer(Protocol):
    """What a reader needs of a ring or perf buffer."""

    @property
    def lost(self) -> int | None: ...  # noqa: D102
    @property
    def pending(self) -> int: ...  # noqa: D102
    @property
    def memory(self) -> int: ...  # noqa: D102
    def drain(self) -> list[bytes]: ...  # noqa: D102
    def wait(self, seconds: float) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


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
        self, events: list[Any], name: str, lost: int | None, readings: tuple[Reading, ...] = ()
    ) -> None:
        super().__init__(events)
        self.readings = readings
        self._name = name
        self._lost = lost

    @property
    def lost(self) -> int:
        """How many events found no room up to here; see `Events.lost`."""
        return _known(self._name, self._lost)


class RawEvent(bytes):
    """An event whose type the object does not say."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"an event of unknown type has no member {name!r}: say its type by "
            "__type(value, struct ...) in the map, or by events('struct ...')"
        )


class Events:
    """A reader of one buffer: what arrived, and what was lost.

    Every event that the program generated is consumed, lost or pending. A ring buffer keeps what
    came before the reader was opened; a perf buffer takes only what comes after.
    """

    def __init__(self, name: str, buffer: Buffer, of: Type | None) -> None:
        self._name = name
        self._buffer: Buffer | None = buffer
        self._type = of
        self._decode = codec(of).decode if of else lambda raw, _: RawEvent(raw)
        self._using = threading.Lock()
        self.consumed = 0

    def read(
        self,
        count: int | None = None,
        *,
        timeout: float = 5.0,
        until: Callable[[Any], bool] | None = None,
    ) -> EventList:
        """Return the events that are there, once there are ``count`` or one satisfies ``until``.

        After ``timeout`` seconds it returns what came so far. More than ``count`` are returned
        when more are there: nothing is held back. Without ``count`` and ``until`` it does not
        wait.
        """
        deadline = time.monotonic() + timeout
        events: list[Any] = []
        readings: list[Reading] = []
        slept: tuple[int, int] | None = None
        while True:
            with self._using:
                drained, lost = self._open.drain(), self._open.lost
            now = time.monotonic_ns()
            if drained:
                readings.append(Reading(len(drained), *(slept or (now, now)), now))
            self.consumed += len(drained)
            new = [self._typed(raw) for raw in drained]
            events += new
            enough = len(events) >= count if count is not None else until is None
            if enough or (until is not None and any(map(until, new))):
                break
            left = deadline - time.monotonic()
            if left <= 0:
                break
            asleep = time.monotonic_ns()
            self._open.wait(min(left, LONGEST_WAIT))
            slept = asleep, time.monotonic_ns()
        return EventList(events, self._name, lost, tuple(readings))

    @property
    def lost(self) -> int:
        """How many events found no room since the reader was opened.

        The kernel counts them for a perf buffer. For a ring buffer it is 0 when there was room
        for one more event at all times, and a `MapError` when there was not: only the program can
        count those.
        """
        with self._using:
            return _known(self._name, self._open.lost)

    @property
    def pending(self) -> int:
        """How many events wait to be read, with those that a program is still writing."""
        with self._using:
            return self._open.pending

    @property
    def memory(self) -> int:
        """Bytes that reading takes besides the map; 0 when closed."""
        return self._buffer.memory if self._buffer is not None else 0

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._buffer is None

    def close(self) -> None:
        """Stop reading; the map and what it holds stay. A `read` that waits ends in `MapError`."""
        with self._using:
            if self._buffer is not None:
                self._buffer.close()
            self._buffer = None

    def __enter__(self) -> Events:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _open(self) -> Buffer:
        if self._buffer is None:
            raise MapError(f"the reader of {self._name!r} is closed")
        return self._buffer

    def _typed(self, raw: bytes) -> Any:
        if self._type is not None and len(raw) < self._type.size:
            raise MapError(
                f"{self._name!r}: an event of {len(raw)} bytes is no {spelled(self._type)} "
                f"({self._type.size} bytes); name its type: events('struct ...')"
            )
        return self._decode(raw, 0)


def _known(name: str, lost: int | None) -> int:
    if lost is None:
        raise MapError(
            f"ring buffer {name!r} was full, so events may be lost, and the kernel does not count "
            "them: read sooner, enlarge it by max_entries=, or let the program count its failed "
            "reservations"
        )
    return lost


def event_type(btf: Btf | None, name: str | None) -> Type | None:
    """Return the type of a buffer's events: by name, else the only one the object points to.

    None when the object does not say it. Raises `UnknownNameError` for an unknown name.
    """
    if btf is None:
        if name:
            raise MapError(f"the object has no BTF to find {name!r} in; compile it with -g")
        return None
    if name:
        return btf.named(name)
    kept = {found for found in btf.global_pointees() if isinstance(found, Struct)}
    return kept.pop() if len(kept) == 1 else None

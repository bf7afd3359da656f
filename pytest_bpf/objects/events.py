"""Events from a ring or perf buffer as typed values, with what was lost counted."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from pytest_bpf.errors import BpfError, MapError
from pytest_bpf.kernel.btf import Btf, Struct, Type
from pytest_bpf.kernel.values import spelled
from pytest_bpf.objects.event_values import EventArray, EventList, Reading, known, shortest, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.kernel.taken import Batch, Records

LONGEST_WAIT = 0.05
"""Seconds after which a waiting reader looks by itself: programs may put out without waking it."""


class Buffer(Protocol):
    """What a reader needs of a ring or perf buffer."""

    discarded: int

    @property
    def lost(self) -> int | None: ...  # noqa: D102
    @property
    def pending(self) -> int: ...  # noqa: D102
    @property
    def memory(self) -> int: ...  # noqa: D102
    def drain(self) -> list[Batch]: ...  # noqa: D102
    def wait(self, seconds: float) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Events:
    """A reader of one buffer: what arrived, and what was lost.

    Every event that the program generated is consumed, lost or pending. A ring buffer keeps what
    came before the reader was opened; a perf buffer takes only what comes after.
    """

    def __init__(
        self,
        name: str,
        buffer: Buffer,
        of: Type | None,
        *,
        every: float | None = None,
        failed: Callable[[], int] | None = None,
        watchers: Sequence[Callable[[EventArray], object]] = (),
    ) -> None:
        if failed is not None and not callable(failed):
            buffer.close()
            raise MapError(f"map {name!r}: failed={failed!r} cannot be called: give a function")
        self._name = name
        self._buffer: Buffer | None = buffer
        self._type = of
        self._every = every
        self._failed = failed
        self._watchers = watchers
        self._using = threading.Lock()
        self._ended: tuple[int | None, int] | None = None
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
        made: list[list[Any]] = []

        def enough(total: int, new: Records) -> bool:
            made.append(typed(new, self._type))
            if count is not None and total >= count:
                return True
            return any(map(until, made[-1])) if until else count is None

        _, readings, lost = self._read(enough, timeout)
        events, *later = made
        for more in later:
            events += more
        return EventList(events, self._name, lost, readings)

    def read_array(self, count: int | None = None, *, timeout: float = 5.0) -> EventArray:
        """Return the same as arrays, without making an object of each event."""

        def enough(total: int, _: Records) -> bool:
            return count is None or total >= count

        records, readings, lost = self._read(enough, timeout)
        return EventArray(records, self._type, self._name, lost, readings)

    @property
    def lost(self) -> int:
        """How many events found no room since the reader was opened.

        The kernel counts them for a perf buffer. For a ring buffer they are what ``failed`` says;
        without it, 0 when there was room for one more event at all times, and a `MapError` when
        there was not: only the program can count those. A closed reader says what it was then.
        """
        with self._using:
            ended = self._buffer is None and self._ended
            return known(self._name, ended[0] if ended else self._lost())

    @property
    def pending(self) -> int:
        """How many events wait to be read, with those that a program is still writing."""
        with self._using:
            ended = self._buffer is None and self._ended
            return ended[1] if ended else self._open.pending

    @property
    def memory(self) -> int:
        """Bytes that reading takes besides the map; 0 when closed."""
        return self._buffer.memory if self._buffer is not None else 0

    @property
    def generated(self) -> int:
        """How many events there were: the sum of ``consumed``, ``pending`` and ``lost``.

        Exact while no program is putting out events; while one is, those of some moment.
        """
        with self._using:
            return self.consumed + self._open.pending + known(self._name, self._lost())

    @property
    def discarded(self) -> int:
        """How many records the programs reserved and discarded, up to the last event read."""
        return self._open.discarded

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._buffer is None

    def close(self) -> None:
        """Stop reading; the map and what it holds stay. A `read` that waits ends in `MapError`."""
        with self._using:
            if self._buffer is not None:
                with suppress(BpfError):
                    self._ended = self._lost(), self._buffer.pending
                self._buffer.close()
            self._buffer = None

    def __enter__(self) -> Events:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(
        self, enough: Callable[[int, Records], bool], timeout: float
    ) -> tuple[Records, tuple[Reading, ...], int | None]:
        """Take what is there, and wait for more, until ``enough`` says so.

        It is given how many records there are, and those that were taken last.
        """
        from pytest_bpf.kernel.taken import Records  # noqa: PLC0415 (numpy: for whoever reads)

        deadline = time.monotonic() + timeout
        batches: list[Batch] = []
        readings: list[Reading] = []
        slept: tuple[int, int] | None = None
        total = 0
        while True:
            with self._using:
                drained = self._open.drain()
                now = time.monotonic_ns()
                new = Records(drained)
                self.consumed += len(new)
                lost = self._lost()
            self._check(new)
            total += len(new)
            if len(new):
                batches += drained
                readings.append(Reading(len(new), *(slept or (now, now)), now))
                for watcher in self._watchers:
                    watcher(EventArray(new, self._type, self._name, lost, readings[-1:]))
            left = deadline - time.monotonic()
            if enough(total, new) or left <= 0:
                return Records(batches), tuple(readings), lost
            asleep = time.monotonic_ns()
            self._open.wait(min(left, self._every or LONGEST_WAIT))
            slept = None if self._every else (asleep, time.monotonic_ns())

    def _lost(self) -> int | None:
        buffer = self._open
        if self._failed is None:
            return buffer.lost
        said: object = self._failed()
        if not isinstance(said, int):
            raise MapError(f"{self._name!r}: failed= says {said!r}, which is no number of events")
        return said

    @property
    def _open(self) -> Buffer:
        if self._buffer is None:
            raise MapError(f"the reader of {self._name!r} is closed")
        return self._buffer

    def _check(self, records: Records) -> None:
        of = self._type
        if of is not None and len(records) and records.shortest < shortest(of):
            raise MapError(
                f"{self._name!r}: an event of {records.shortest} bytes is no {spelled(of)} "
                f"({shortest(of)} bytes); name its type: events('struct ...')"
            )


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
    kept = {found for found in btf.global_pointees if isinstance(found, Struct)}
    return kept.pop() if len(kept) == 1 else None

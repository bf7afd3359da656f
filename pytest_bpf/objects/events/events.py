"""Events from a ring or perf buffer as typed values, with what was lost counted."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from pytest_bpf.errors import BpfError, MapError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.objects.events.event_types import decode
from pytest_bpf.objects.events.event_values import EventArray, EventList, Reading, require_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.kernel.ringbuf.rows import Records, RowBatch
    from pytest_bpf.objects.events.event_types import EventTypes

MAX_WAIT = 0.05
"""Seconds after which a waiting reader polls: programs may write without waking it."""


class Buffer(Protocol):
    """What a reader needs of a ring or perf buffer."""

    discarded: int
    lasting: bool
    """Whether what was not drained stays in the map when it is closed."""

    @property
    def lost(self) -> int | None: ...  # noqa: D102
    @property
    def pending(self) -> int: ...  # noqa: D102
    @property
    def memory(self) -> int: ...  # noqa: D102
    def drain(self, batches: list[RowBatch]) -> None: ...  # noqa: D102
    def settle(self, batches: list[RowBatch]) -> None: ...  # noqa: D102
    def wait(self, seconds: float) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@checked_methods
class Events:
    """A reader of one buffer: what arrived, and what was lost.

    Every event that the program generated is consumed, lost or pending. A reading that fails
    consumes nothing: what it took from the buffer, the next one gives. Only events that do not fit
    their type are set aside, once the error has said so; a reader of another type has them.

    A ring buffer keeps what came before the reader was opened; a perf buffer takes only what
    comes after.
    """

    def __init__(
        self,
        name: str,
        buffer: Buffer,
        types: EventTypes,
        unread: Sequence[RowBatch] = (),
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
        self._types = types
        self._unread: list[RowBatch] = list(unread)
        self._reading = threading.RLock()
        self._every = every
        self._failed = failed
        self._watchers = watchers
        self._lock = threading.Lock()
        self._final: tuple[int | None, int] | None = None
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
        lists: list[list[Any]] = []
        self._check_wait(count, timeout)
        if until is not None and not callable(until):
            raise MapError(f"{self._name!r}: until={until!r} cannot be called: give a function")

        def enough(total: int, new: Records) -> bool:
            lists.append(decode(self._types, new))
            if count is not None and total >= count:
                return True
            return any(map(until, lists[-1])) if until else count is None

        with self._reading:
            records, readings, lost = self._read(enough, timeout)
            events, *later = lists
            for more in later:
                events += more
            source = EventArray(records, self._types, self._name, lost, readings)
            result = EventList(events, self._name, lost, readings, source)
            self._consume(result.readings)
        return result

    def read_array(self, count: int | None = None, *, timeout: float = 5.0) -> EventArray:
        """Return the same as arrays, without making an object of each event."""
        self._check_wait(count, timeout)

        def enough(total: int, _: Records) -> bool:
            return count is None or total >= count

        with self._reading:
            records, readings, lost = self._read(enough, timeout)
            result = EventArray(records, self._types, self._name, lost, readings)
            self._consume(readings)
        return result

    @property
    def lost(self) -> int:
        """How many events did not fit since the reader was opened.

        The kernel counts them for a perf buffer. For a ring buffer they are what ``failed`` says;
        without it, 0 when there was room for one more event at all times, and a `MapError` when
        there was not: only the program can count those. A closed reader says what it was then.
        """
        with self._lock:
            final = self._buffer is None and self._final
            return require_loss(self._name, final[0] if final else self._lost())

    @property
    def pending(self) -> int:
        """How many events wait to be read, with those that a program is still writing."""
        with self._lock:
            final = self._buffer is None and self._final
            return final[1] if final else self._pending

    @property
    def memory(self) -> int:
        """Bytes that reading takes besides the map; 0 when closed."""
        return self._buffer.memory if self._buffer is not None else 0

    @property
    def generated(self) -> int:
        """How many events there were: the sum of ``consumed``, ``pending`` and ``lost``.

        Exact while no program is putting out events; while one is, those of some moment.
        """
        with self._lock:
            return self.consumed + self._pending + require_loss(self._name, self._lost())

    @property
    def discarded(self) -> int:
        """How many records the programs reserved and discarded, up to the last event read."""
        return self._live.discarded

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._buffer is None

    def close(self) -> None:
        """Stop reading; the map and what it holds stay. A `read` that waits ends in `MapError`."""
        with self._lock:
            if self._buffer is not None:
                self._buffer.settle(self._unread)
                with suppress(BpfError):
                    self._final = self._lost(), self._pending
                self._buffer.close()
            self._buffer = None

    def __enter__(self) -> Events:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_wait(self, count: object, timeout: object) -> None:
        """Refuse a number of events or of seconds that there cannot be."""
        if isinstance(count, (int, float)) and (count < 0 or count != int(count)):
            raise MapError(f"{self._name!r}: count={count} is no number of events")
        if isinstance(timeout, (int, float)) and not timeout >= 0:
            raise MapError(f"{self._name!r}: timeout={timeout} is no number of seconds")

    def _read(
        self, enough: Callable[[int, Records], bool], timeout: float
    ) -> tuple[Records, tuple[Reading, ...], int | None]:
        """Take what is there, and wait for more, until ``enough`` says so.

        It is given how many records there are, and those that were taken last.
        """
        from pytest_bpf.kernel.ringbuf.rows import Records  # noqa: PLC0415 (numpy: for whoever reads)

        deadline = time.monotonic() + timeout
        readings: list[Reading] = []
        sleep: tuple[int, int] | None = None
        total = begin = 0
        while True:
            with self._lock:
                self._live.drain(self._unread)
                lost = self._lost()
            now = time.monotonic_ns()
            new = self._fitting(begin)
            begin = len(self._unread)
            total += len(new)
            if len(new):
                readings.append(Reading(len(new), *(sleep or (now, now)), now))
            left = deadline - time.monotonic()
            if enough(total, new) or left <= 0:
                records = Records([batch for batch in self._unread if not batch.misfit])
                self._show(records, readings, lost)
                return records, tuple(readings), lost
            asleep = time.monotonic_ns()
            self._live.wait(min(left, self._every or MAX_WAIT))
            sleep = None if self._every else (asleep, time.monotonic_ns())

    def _fitting(self, begin: int) -> Records:
        """Return the unread events from a batch on; set those aside that do not fit, and raise."""
        from pytest_bpf.kernel.ringbuf.rows import Records  # noqa: PLC0415

        fitting = [batch for batch in self._unread[begin:] if not batch.misfit]
        records = Records(fitting)
        misfits = self._types.misfits(records)
        if not misfits:
            return records
        first, parts = 0, self._unread[:begin]
        for batch in self._unread[begin:]:
            if batch.misfit:
                parts.append(batch)
                continue
            places = range(first, first + batch.count)
            parts += batch.split([at - first for at in places if at in misfits])
            first += batch.count
        self._unread[:] = parts
        self.consumed += len(misfits)
        many = f" ({len(misfits)} such events)" if len(misfits) > 1 else ""
        reason = next(iter(misfits.values()))
        raise MapError(
            f"{self._name!r}: {reason}{many}; name its type, or several: events('struct ...')"
        )

    def _show(self, records: Records, readings: Sequence[Reading], lost: int | None) -> None:
        """Give watchers what was read, each reading by itself."""
        first = 0
        for reading in readings if self._watchers else ():
            part = records
            if len(readings) > 1:
                part = records.select(range(first, first + reading.events))
            first += reading.events
            for watcher in self._watchers:
                watcher(EventArray(part, self._types, self._name, lost, [reading]))

    def _consume(self, readings: Sequence[Reading]) -> None:
        """Count events as read and forget them; those that do not fit stay for another type."""
        self.consumed += sum(reading.events for reading in readings)
        self._unread[:] = [batch for batch in self._unread if batch.misfit]

    @property
    def _pending(self) -> int:
        unread = sum(batch.count for batch in self._unread if not batch.misfit)
        return unread + self._live.pending

    def hand_over(self) -> list[RowBatch]:
        """Close the reader, and return what it took from the buffer and nobody has read."""
        with self._lock:
            if self._buffer is not None and not self._buffer.lasting:
                self._buffer.drain(self._unread)
        self.close()
        return [replace(batch, misfit=False) for batch in self._unread]

    def _lost(self) -> int | None:
        buffer = self._live
        if self._failed is None:
            return buffer.lost
        count: object = self._failed()
        if not isinstance(count, int):
            raise MapError(f"{self._name!r}: failed= returned {count!r}, not a number of events")
        return count

    @property
    def _live(self) -> Buffer:
        if self._buffer is None:
            raise MapError(f"the reader of {self._name!r} is closed")
        return self._buffer

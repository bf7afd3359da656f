"""Who reads the events of a map: one reader at a time, and those who look on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_bpf.objects.events.events import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.objects.events.event_types import Choice, EventTypes
    from pytest_bpf.objects.events.event_values import EventArray


class EventReading:
    """The reader of one map; another one closes it, and has what it left unread."""

    def __init__(self, name: str, kind: str, max_entries: int) -> None:
        self._name = name
        self._kind = kind
        self._max_entries = max_entries
        self._options: tuple[Any, ...] = ()
        self._watchers: list[Callable[[EventArray], object]] = []
        self.reader: Events | None = None

    def open(
        self,
        fd: int,
        types: EventTypes,
        choice: Choice,
        *,
        tag: str | None,
        every: float | None,
        size: int | None,
        by_time: bool,
        failed: Callable[[], int] | None,
    ) -> Events:
        """Return the open reader with these types and options, or else a new one."""
        from pytest_bpf.objects.events.buffers import open_buffer  # noqa: PLC0415 (numpy, when asked for)

        earlier = self.reader
        options = (types.one, types.one is None and choice, tag, every, size, by_time, failed)
        if earlier is not None and not earlier.closed and self._options == options:
            return earlier
        unread = earlier.hand_over() if earlier is not None else []
        buffer = open_buffer(
            fd,
            self._name,
            self._kind,
            self._max_entries,
            record=types.size,
            every=every,
            size=size,
            by_time=by_time,
        )
        self._options = options
        self.reader = Events(
            self._name,
            buffer,
            types,
            unread,
            every=every,
            failed=failed,
            watchers=self._watchers,
        )
        return self.reader

    @contextmanager
    def watching(self, watcher: Callable[[EventArray], object]) -> Iterator[None]:
        """Have ``watcher`` called with the events of each reading, until the ``with`` ends."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def close(self) -> None:
        """Close the reader, when there is one."""
        if self.reader is not None:
            self.reader.close()

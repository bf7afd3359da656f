"""A BPF map as a Python mapping, typed by BTF both ways."""

from __future__ import annotations

import os
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError
from pytest_bpf.kernel import elements, libbpf
from pytest_bpf.kernel.btf import Btf, Struct, Type, in_kernel, map_types
from pytest_bpf.kernel.info import MapInfo, memlock, read_info
from pytest_bpf.objects import found
from pytest_bpf.objects.events import Events, event_type
from pytest_bpf.objects.layout import KEYLESS, MAPS_OF_MAPS, layout
from pytest_bpf.objects.percpu import PerCPU, add
from pytest_bpf.objects.reading import Reader
from pytest_bpf.objects.whole_map import ABSENT, EVENT_MAPS, QUEUES, WholeMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.objects.event_values import EventArray
    from pytest_bpf.objects.events import Buffer


class Map(WholeMap):
    """One map: ``[]``, ``in``, ``len``, ``items``, ``update``, ``del`` and what its kind adds.

    Keys and values are typed by BTF (see :mod:`pytest_bpf.kernel.values`). The values of a per-CPU
    map come as `PerCPU`, one per possible CPU; those of a map of maps as `Map`; those of a program
    array as program ids. Where the kernel takes a descriptor, the thing itself is written:
    programs, maps, sockets, cgroups, pids.

    A kernel error is a `MapError`, a value that does not fit a `ValueTypeError`, a missing key a
    `KeyError`.
    """

    def __init__(
        self,
        fd: int,
        name: str = "",
        *,
        key: Type | None = None,
        value: Type | None = None,
        btf: Btf | None = None,
    ) -> None:
        info = read_info(fd, MapInfo)
        self._fd = fd
        self._declared = value
        self._btf = btf
        self._release: Callable[[], object] | None = None
        self._reader: Events | None = None
        self._watchers: list[Callable[[EventArray], object]] = []
        self._reader_options: tuple[Any, ...] = ()
        self.name = name or info.name.decode()
        self.layout = layout(self.name, info, key, value)
        self.type = self.layout.kind
        self.id: int = info.id
        self.key_size: int = info.key_size
        self.value_size: int = info.value_size
        self.max_entries: int = info.max_entries
        self.flags: int = info.map_flags
        self._wrap = Map.from_id if self.type in MAPS_OF_MAPS else None
        self._reads = Reader(self.layout, self.max_entries, self.flags)

    @classmethod
    def from_id(cls, map_id: int) -> Map:
        """Open the map with this id; its descriptor is closed by `close` or with the value.

        Raises `MapError` when there is no such map.
        """
        return cls.found(found.by_id("map", map_id))

    @classmethod
    def from_pin(cls, path: str | os.PathLike[str]) -> Map:
        """Open the map that is pinned to a path; the rest is as with `from_id`."""
        return cls.found(found.by_pin("map", path))

    @classmethod
    def found(
        cls, fd: int, btf: Btf | None = None, *, name: str = "", event: Struct | None = None
    ) -> Map:
        """Return the map of a descriptor, which is closed by `close` or with the value.

        Keys and values are typed by the map's own BTF in the kernel; ``btf`` has the types of
        events where the map has none, and ``event`` is the type of them.
        """
        try:
            info = read_info(fd, MapInfo)
            own = in_kernel(info.btf_id)
            key, value = map_types(own, info)
            opened = cls(fd, name, key=key, value=event or value, btf=own or btf)
        except BaseException:
            os.close(fd)
            raise
        opened._release = weakref.finalize(opened, os.close, fd)
        return opened

    @property
    def fd(self) -> int:
        """The file descriptor; `MapError` once it, or the object it came from, is closed."""
        if self._fd < 0:
            raise MapError(f"map {self.name!r} is gone: its object was closed, or it was itself")
        return self._fd

    @property
    def info(self) -> MapInfo:
        """Everything the kernel tells, now: ``struct bpf_map_info``."""
        return read_info(self.fd, MapInfo)

    @property
    def per_cpu(self) -> bool:
        """Whether each key has one value per possible CPU."""
        return self.layout.per_cpu

    # -- the mapping -------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        self._keyed()
        return self._look_up(key)

    def _look_up(self, key: Any) -> Any:
        with self.layout.key_bytes(key) as raw:
            try:
                value = elements.lookup(self.fd, raw, self.layout.stride)
            except OSError as error:
                raise self._failed(error, "look-up", key) from None
        return self._value(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def put(self, key: Any, value: Any, flag: str = "any") -> None:
        """Set one element; ``flag`` is "any", "noexist" (only new keys) or "exist" (only old).

        A per-CPU map takes one value for all CPUs, or a list of one for each possible CPU.
        """
        self._keyed()
        self._update(key, value, flag)

    def __delitem__(self, key: Any) -> None:
        self._keyed()
        with self.layout.key_bytes(key) as raw:
            try:
                elements.delete(self.fd, raw or b"")
            except OSError as error:
                raise self._failed(error, "deletion", key) from None

    def __contains__(self, key: object) -> bool:
        if self.type == "bloom_filter":
            with self.layout.value_bytes(key) as raw:
                return elements.member(self.fd, raw)
        try:
            self[key]
        except KeyError:
            return False
        return True

    def __bool__(self) -> bool:
        return len(self) > 0 if self.type not in KEYLESS | EVENT_MAPS else True

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"id {self.id}"
        return f"<Map {self.name} ({self.type}, max_entries {self.max_entries}, {state})>"

    # -- what the kinds add ------------------------------------------------------------------

    def sum(self, key: Any = ABSENT) -> Any:
        """Return the sum over all CPUs of one key's value; over all keys too when none is named.

        An empty map's sum is 0. Raises `KeyError` for a missing key, `MapError` for values that
        have no sum.
        """
        values = self.values() if key is ABSENT else [self[key]]
        return add(v.sum() if isinstance(v, PerCPU) else v for v in values) if values else 0

    def push(self, value: Any) -> None:
        """Add to a queue, a stack or a bloom filter; `MapError` when it is full."""
        self._require(KEYLESS, "pushed to")
        self._update(None, value)

    def peek(self) -> Any:
        """Return the next value of a queue or stack and leave it there; `KeyError` when empty."""
        self._require(QUEUES, "peeked at")
        return self._look_up(None)

    def pop(self, *key: Any) -> Any:
        """Take the next value of a queue or stack; of other kinds, ``pop(key[, default])``."""
        if self.type not in QUEUES:
            return super().pop(*key)
        try:
            return self._value(elements.take(self.fd, None, self.layout.stride))
        except OSError as error:
            raise self._failed(error, "pop") from None

    def events(
        self,
        type: str | None = None,  # noqa: A002 (a C type, as in BTF)
        *,
        every: float | None = None,
        size: int | None = None,
        failed: Callable[[], int] | None = None,
    ) -> Events:
        """Return the reader of this ring or perf buffer; it ends with the object, or by ``close``.

        There is one at a time: asked for again it is the same, and one for another type or with
        other options closes it. ``type`` is the C type of an event (``"struct event"``) where the
        object does not say it: by ``__type(value, struct event)`` in the map, or by a global
        ``const struct event *unused __attribute__((unused))``.

        Each event wakes a reader that waits. One that looks ``every`` so many seconds is not
        woken, which spares the programs most of their time, and so keeps up with millions of
        events a second. ``size`` is the bytes of a perf buffer for each CPU, rounded up to a power
        of two of pages (256 KiB). ``failed`` says how many events found no room in a ring buffer,
        where the program counts them.

        Raises `MapError` for other kinds of map and for options that are out of range,
        `UnknownNameError` for a type that the object does not have.
        """
        self._require(EVENT_MAPS, "read as events")
        _ = self.fd  # where that is closed, so is the BTF
        declared = self._declared if self.type == "ringbuf" else None
        declared = self._declared if isinstance(self._declared, Struct) else declared
        of = declared if declared and declared.size and not type else event_type(self._btf, type)
        asked = (of, every, size, failed)
        if self._reader is not None and not self._reader.closed:
            if self._reader_options == asked:
                return self._reader
            self._reader.close()
        buffer = self._buffer(of, every, size)
        self._reader = Events(
            self.name, buffer, of, every=every, failed=failed, watchers=self._watchers
        )
        self._reader_options = asked
        return self._reader

    @property
    def reader(self) -> Events | None:
        """The reader that `events` gave last, if it did, open or closed."""
        return self._reader

    @contextmanager
    def watching(self, watcher: Callable[[EventArray], object]) -> Iterator[None]:
        """Have ``watcher`` called with the events of each reading, until the ``with`` ends."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def freeze(self) -> None:
        """Forbid further changes from user space, for good (``BPF_MAP_FREEZE``)."""
        try:
            libbpf.call("bpf_map_freeze", self.fd)
        except OSError as error:
            raise self._failed(error, "freezing") from None

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin the map to a path on a bpffs; it lives until that path is removed."""
        found.pin(self.fd, f"map {self.name!r}", path)

    @property
    def memlock(self) -> int:
        """Memory in bytes as the kernel accounts it (``/proc/self/fdinfo``).

        Exact since 6.2; before, an estimate made when the map was created.
        """
        return memlock(self.fd)

    def close(self) -> None:
        """End the readers of events and forget the descriptor; the map stays with its maker."""
        if self._reader is not None:
            self._reader.close()
        self._fd = -1
        self._reads.close()
        if self._release is not None:
            self._release()

    # -- inside ------------------------------------------------------------------------------

    def _buffer(self, of: Type | None, every: float | None, size: int | None) -> Buffer:
        from pytest_bpf.objects.buffers import opened  # noqa: PLC0415 (numpy, when asked for)

        return opened(self, of.size if of else 0, every, size)

    def _value(self, raw: bytes) -> Any:
        value = self.layout.decode_value(raw)
        return value if self._wrap is None else self._wrap(value)

    def _require(self, kinds: frozenset[str], action: str) -> None:
        if self.type not in kinds:
            raise MapError(
                f"map {self.name!r} is a {self.type} and cannot be {action}; "
                f"that takes a {' or '.join(sorted(kinds))}"
            )

"""A BPF map as a Python mapping, typed by BTF both ways."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError, ValueTypeError, with_article
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.btf import Btf, Struct, Type, btf_by_id, map_types
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.sys import ids, libbpf
from pytest_bpf.kernel.sys.info import MapInfo, memlock, read_info
from pytest_bpf.kernel.values.codec import describe
from pytest_bpf.kinds.maps import EVENT_MAPS, KEYLESS, MAPS_OF_MAPS, QUEUES
from pytest_bpf.objects.events.event_types import event_types
from pytest_bpf.objects.maps import showing
from pytest_bpf.objects.maps.event_reading import EventReading
from pytest_bpf.objects.maps.layout import layout
from pytest_bpf.objects.maps.percpu import PerCPU, add
from pytest_bpf.objects.maps.reading import Reader
from pytest_bpf.objects.maps.stacks import stack_trace
from pytest_bpf.objects.maps.stand_ins import stand_in
from pytest_bpf.objects.maps.template import MapTemplate, create
from pytest_bpf.objects.maps.user_ring import UserRing
from pytest_bpf.objects.maps.whole_map import ABSENT, WholeMap
from pytest_bpf.objects.types import Types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_bpf.objects.events.event_types import Choice
    from pytest_bpf.objects.events.event_values import EventArray
    from pytest_bpf.objects.events.events import Events


@checked_methods
class Map(WholeMap):
    """One map: ``[]``, ``in``, ``len``, ``items``, ``update``, ``del`` and what its kind adds.

    Keys and values are typed by BTF (see `kernel.values.codec`). The values of a per-CPU
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
        types: Types | None = None,
        inner: MapTemplate | None = None,
    ) -> None:
        info = read_info(fd, MapInfo)
        self._fd = fd
        self._declared = value
        self.types = types or Types()
        self._release: Callable[[], object] | None = None
        self.older_pin: Path | None = None
        """The pin that the load of its object took this map from; None for a map of its own."""
        self.name = name or info.name.decode()
        self.layout = layout(self.name, info, key, value)
        self.type = self.layout.kind
        self.id: int = info.id
        self.key_size: int = info.key_size
        self.value_size: int = info.value_size
        self.max_entries: int = info.max_entries
        self.flags: int = info.map_flags
        self._inner = inner
        self._wrap = self._inner_map if self.type in MAPS_OF_MAPS else stand_in(self.type)
        if self.layout.holds_stacks:
            self._wrap = stack_trace
        self._ring = UserRing(self.name, self.max_entries)
        self._reading = EventReading(self.name, self.type, self.max_entries)
        self._reads = Reader(self.layout, self.max_entries, self.flags)

    @classmethod
    def from_id(cls, map_id: int) -> Map:
        """Open the map with this id; its descriptor is closed by `close` or with the value.

        Raises `MapError` when there is no such map.
        """
        return cls.from_fd(ids.by_id("map", map_id))

    @classmethod
    def from_pin(cls, path: str | os.PathLike[str]) -> Map:
        """Open the map that is pinned to a path; the rest is as with `from_id`."""
        return cls.from_fd(ids.by_pin("map", path))

    @classmethod
    def from_fd(
        cls,
        fd: int,
        btf: Btf | None = None,
        *,
        name: str = "",
        event: Struct | None = None,
        like: MapTemplate | None = None,
    ) -> Map:
        """Return the map of a descriptor, which is closed by `close` or with the value.

        Keys and values are typed by the map's own BTF in the kernel, else as ``like`` says;
        ``btf`` has the types of events where the map has none, and ``event`` is the type of them.
        """
        try:
            info = read_info(fd, MapInfo)
            own = btf_by_id(info.btf_id)
            key, value = map_types(own, info)
            key, value = (key or like.key, value or like.value) if like else (key, value)
            map_ = cls(
                fd,
                name,
                key=key,
                value=event or value,
                types=Types(own or btf),
                inner=like.inner if like else None,
            )
        except BaseException:
            os.close(fd)
            raise
        map_._release = weakref.finalize(map_, os.close, fd)
        return map_

    @classmethod
    def create(cls, template: MapTemplate, name: str = "") -> Map:
        """Create a map; it is gone after `close`, unless something else holds it.

        Raises what `pytest_bpf.objects.maps.template.create` says.
        """
        if template.inner is None:
            return cls.from_fd(create(template, name=name), name=name, like=template)
        with closing(cls.create(template.inner, f"inner map of {name}")) as inner:
            return cls.from_fd(create(template, inner.fd, name), name=name, like=template)

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
    def template(self) -> MapTemplate:
        """What another map like this one is created from."""
        return MapTemplate(
            self.type,
            self.key_size,
            self.value_size,
            self.max_entries,
            self.flags,
            self.layout.key,
            self.layout.value,
            self._inner,
        )

    @property
    def per_cpu(self) -> bool:
        """Whether each key has one value per possible CPU."""
        return self.layout.per_cpu

    # -- the mapping -------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        self._keyed()
        return self._look_up(key)

    def get(self, key: Any, default: Any = None, *, lock: bool = False) -> Any:
        """Return the value of a key, or ``default`` where there is none.

        With ``lock`` it is read under the ``struct bpf_spin_lock`` in it (``BPF_F_LOCK``), so that
        it is never half written by a program that holds the lock.
        """
        self._keyed()
        try:
            return self._look_up(key, elements.LOCK if lock else elements.ANY)
        except KeyError:
            return default

    def _look_up(self, key: Any, flags: int = elements.ANY) -> Any:
        with self.layout.key_bytes(key) as raw:
            try:
                value = elements.lookup(self.fd, raw, self.layout.stride, flags)
            except OSError as error:
                raise self._failed(error, _action("look-up", flags), key) from None
        return self._value(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def put(self, key: Any, value: Any, flag: str = "any", *, lock: bool = False) -> None:
        """Set one element; ``flag`` is "any", "noexist" (only new keys) or "exist" (only old).

        With ``lock`` it is written under the ``struct bpf_spin_lock`` in it (``BPF_F_LOCK``).
        A per-CPU map takes one value for all CPUs, or a list of one for each possible CPU.
        """
        self._keyed()
        self._update(key, value, flag, lock=lock)

    def _update(self, key: Any, value: Any, flag: str = "any", *, lock: bool = False) -> None:
        """Set one element; in a map of maps, a mapping becomes a new map with these elements."""
        holds_maps = self.type in MAPS_OF_MAPS
        if not holds_maps or isinstance(value, WholeMap) or not isinstance(value, Mapping):
            super()._update(key, value, flag, lock=lock)
            return
        if self._inner is None:
            raise MapError(
                f"map {self.name!r} ({self.type}): how its inner maps are declared is not known "
                "here; give a map, such as bpf.create_map makes, in the place of a dict"
            )
        with closing(Map.create(self._inner, f"{self.name}[{key!r}]")) as inner:
            inner.update(value)
            super()._update(key, inner, flag)

    def _inner_map(self, map_id: int) -> Map:
        return Map.from_fd(ids.by_id("map", map_id), like=self._inner)

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
        """Return name, type and the first elements: the same in every run, as it has no id."""
        return showing.in_one_line(self)

    def __str__(self) -> str:
        """Return a table of the elements, the first 40."""
        return showing.table(self)

    # -- what the kinds add ------------------------------------------------------------------

    def sum(self, key: Any = ABSENT) -> Any:
        """Return the sum over all CPUs of one key's value; over all keys too when none is named.

        An empty map's sum is 0. Raises `KeyError` for a missing key, `MapError` for values that
        have no sum.
        """
        values = self.values() if key is ABSENT else [self[key]]
        return add(v.sum() if isinstance(v, PerCPU) else v for v in values) if values else 0

    def push(self, value: Any, type: str | None = None) -> None:  # noqa: A002 (a C type)
        """Add to a queue, a stack, a bloom filter or a user ring buffer; `MapError` when full.

        What goes into a user ring buffer is of the C type that its map declares or that ``type``
        names (``"struct command"``), or it is bytes.
        """
        self._require(KEYLESS | {"user_ringbuf"}, "pushed to")
        if self.type == "user_ringbuf":
            record_type = self.types.find(type) if type else self._declared
            self._ring.write(self.fd, value, record_type)
        elif type is not None:
            raise MapError(
                f"map {self.name!r} is {with_article(self.type)}: type= is for user ring buffers"
            )
        else:
            self._update(None, value)

    def peek(self) -> Any:
        """Return the next value of a queue or stack and leave it there; `KeyError` when empty."""
        self._require(QUEUES, "peeked at")
        return self._look_up(None)

    def pop(self, *key: Any) -> Any:
        """Take the next value of a queue or stack; of other kinds, ``pop(key[, default])``."""
        if self.type not in QUEUES:
            if not key:
                self._keyed()
            return super().pop(*key)
        try:
            return self._value(elements.take(self.fd, None, self.layout.stride))
        except OSError as error:
            raise self._failed(error, "pop") from None

    def events(
        self,
        type: Choice = None,  # noqa: A002 (a C type, as in BTF)
        *,
        tag: str | None = None,
        every: float | None = None,
        size: int | None = None,
        by_time: bool = False,
        failed: Callable[[], int] | None = None,
    ) -> Events:
        """Return the reader of this ring or perf buffer; it ends with the object, or by ``close``.

        There is one at a time: asked for again it is the same, and one for another type or with
        other options closes it and has what it left unread.

        ``type`` is the C type of an event (``"struct event"``). Without it, the type is the one
        that the map declares (``__type(value, struct event)``), or the only one that the programs
        write to it. Several types are a list, chosen by the size of each event; a mapping from
        the values of the member ``tag`` to types; or a function that is given the bytes of an event
        and returns the name of its type (None for bytes).

        Each event wakes a reader that waits. One that looks ``every`` so many seconds is not
        woken, which spares the programs most of their time, and so keeps up with millions of
        events a second. ``size`` is the bytes of a perf buffer for each CPU, rounded up to a power
        of two of pages (256 KiB). A perf buffer gives the events of each CPU in order; ``by_time``
        those of all CPUs, which costs the programs some 100 ns an event. ``failed`` says how many
        events did not fit in a ring buffer, where the program counts them.

        Raises `MapError` for other kinds of map and for options that are out of range,
        `UnknownNameError` for a type that the object does not have.
        """
        self._require(EVENT_MAPS, "read as events")
        _ = self.fd  # where that is closed, so is the BTF
        types = event_types(
            self.types, type, tag, name=self.name, kind=self.type, declared=self._declared
        )
        return self._reading.open(
            self.fd, types, type, tag=tag, every=every, size=size, by_time=by_time, failed=failed
        )

    @property
    def reader(self) -> Events | None:
        """The reader that `events` gave last, if it did, open or closed."""
        return self._reading.reader

    @contextmanager
    def watching(self, watcher: Callable[[EventArray], object]) -> Iterator[None]:
        """Have ``watcher`` called with the events of each reading, until the ``with`` ends."""
        with self._reading.watching(watcher):
            yield

    def freeze(self) -> None:
        """Forbid further changes from user space, for good (``BPF_MAP_FREEZE``)."""
        try:
            libbpf.call("bpf_map_freeze", self.fd)
        except OSError as error:
            raise self._failed(error, "freezing") from None

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin the map to a path on a bpffs; it lives until that path is removed."""
        if not isinstance(path, (str, os.PathLike)):
            raise ValueTypeError(f"map {self.name!r}: a pin is a path, not {describe(path)}")
        ids.pin(self.fd, f"map {self.name!r}", path)

    @property
    def memlock(self) -> int:
        """Memory in bytes as the kernel accounts it (``/proc/self/fdinfo``).

        Exact since 6.2; before, an estimate made when the map was created.
        """
        return memlock(self.fd)

    def close(self) -> None:
        """End the readers of events and forget the descriptor; the map stays with its maker."""
        self._reading.close()
        self._ring.close()
        self._fd = -1
        self._reads.close()
        if self._release is not None:
            self._release()

    # -- inside ------------------------------------------------------------------------------

    def _value(self, raw: bytes) -> Any:
        value = self.layout.decode_value(raw)
        return value if self._wrap is None else self._wrap(value)

    def _require(self, kinds: frozenset[str], action: str) -> None:
        if self.type not in kinds:
            raise MapError(
                f"map {self.name!r} is {with_article(self.type)} and cannot be {action}; "
                f"that takes a {' or '.join(sorted(kinds))}"
            )


def _action(name: str, flags: int) -> str:
    return f"{name} with lock" if flags & elements.LOCK else name

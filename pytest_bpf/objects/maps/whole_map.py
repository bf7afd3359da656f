"""What every map has: elements set by value, and all of them read and written in one go."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError, with_article
from pytest_bpf.kernel.maps import batches, elements
from pytest_bpf.kinds.maps import (
    EVENT_MAPS,
    KEYED_BY_DESCRIPTOR,
    KEYLESS,
    QUEUES,
    VALUED_BY_DESCRIPTOR,
)
from pytest_bpf.objects.maps import devices, writing
from pytest_bpf.objects.maps.contents import Contents
from pytest_bpf.objects.maps.refusals import explain

if TYPE_CHECKING:
    import numpy as np

    from pytest_bpf.objects.maps.layout import ElementLayout
    from pytest_bpf.objects.maps.reading import Reader

_FLAGS = {"any": elements.ANY, "noexist": elements.NOEXIST, "exist": elements.EXIST}
ABSENT = object()
RINGS = {"ringbuf": "read it by events()", "user_ringbuf": "write to it by push()"}
"""Kinds without elements, and what they have instead."""


class WholeMap(MutableMapping[Any, Any]):  # noqa: PLW1641 (compares by content, so has no hash)
    """The part of a `Map` that reads and writes many elements at once."""

    name: str
    type: str
    max_entries: int
    layout: ElementLayout
    _reads: Reader
    _wrap: Callable[[Any], Any] | None
    """What a value is given to before it is shown: the maps in a map of maps, stacks, handles."""

    @property
    @abstractmethod
    def fd(self) -> int:
        """The file descriptor; `MapError` once it, or the object it came from, is closed."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())

    def __len__(self) -> int:
        return len(self.copy())

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Set the elements of a mapping or of pairs, in bulk; see `update_many`."""
        self.update_many(other)
        if more:
            self.update_many(more)

    def update_many(self, elements: Any, values: Any = None, flag: str = "any") -> int:
        """Set many elements in one go, and return how many.

        ``elements`` are keys and ``values`` their values, each any iterable or a numpy array; or,
        without ``values``, what `snapshot` returns, a mapping, or pairs. A per-CPU map's array of
        values has shape ``(n, possible CPUs)``, or ``(n,)`` for the same on all. ``flag`` is that
        of `put`.

        They are set in order, each by itself. `MapError` at the first that the kernel refuses: it
        says how many are set, and these stay. `ValueTypeError`, before anything is set, for keys or
        values that do not fit.
        """
        self._keyed()
        number = _flag(flag)
        keys, values = writing.split_elements(self.layout, elements, values)
        if self.type in KEYED_BY_DESCRIPTOR | VALUED_BY_DESCRIPTOR | devices.KINDS:
            for key, value in zip(keys, values, strict=True):
                self._update(key, value, flag)
            return len(keys)
        raw_keys = writing.keys_as_bytes(self.layout, keys)
        raw_values = writing.values_as_bytes(self.layout, values)
        try:
            batches.update(self.fd, raw_keys, raw_values, len(keys), number)
        except batches.PartialError as error:
            raise self._partly(error, "set", keys) from None
        return len(keys)

    def delete_many(self, keys: Any) -> int:
        """Delete many keys in one go, pass over those that are not there, return how many were.

        ``keys`` is any iterable or a numpy array. `MapError` at the first that the kernel refuses.
        """
        self._keyed()
        keys = writing.to_list(self.layout, "keys", keys)
        if self.type in KEYED_BY_DESCRIPTOR:
            return sum(self.pop(key, ABSENT) is not ABSENT for key in keys)
        raw = writing.keys_as_bytes(self.layout, keys)
        try:
            return batches.delete(self.fd, raw, len(keys))
        except batches.PartialError as error:
            raise self._partly(error, "deleted", keys) from None

    def items(self) -> Any:
        """Return (key, value) pairs, read in bulk."""
        return self.copy().items()

    def values(self) -> Any:
        """Return the values, read in bulk."""
        return self.copy().values()

    def copy(self) -> Contents:
        """Return what is in the map now as a mapping of its own, read in bulk.

        While the map changes, each element that stayed is in it once, with a value that it had at
        some moment; those that came or went may be in it or not.
        """
        self._keyed()
        if self.type in EVENT_MAPS:
            raise self._no_elements("read it by events()")
        try:
            read = self._reads.read(lambda: self.fd)
        except OSError as error:
            raise self._failed(error, "reading") from None
        return Contents(self.layout, read, self._wrap)

    def clear(self) -> None:
        """Delete every key; the elements of an array cannot be deleted and are set to zero."""
        contents = self.copy()
        keys = b"".join(key for key, _ in contents.raw_items())
        try:
            if self.type in {"array", "percpu_array"}:
                batches.update(
                    self.fd, keys, bytes(self.layout.stride * len(contents)), len(contents)
                )
            else:
                batches.delete(self.fd, keys, len(contents))
        except OSError as error:
            raise self._failed(error, "clearing") from None

    def __eq__(self, other: object) -> bool:
        return self.copy() == other if isinstance(other, Mapping) else NotImplemented

    def snapshot(self) -> np.ndarray[Any, Any]:
        """Return what is in the map now as a structured array with ``key`` and ``value``.

        Shape ``(n,)``; for a per-CPU map ``value`` has shape ``(n, possible CPUs)``. It is a copy
        and stays as it is. What it promises of a map that changes is said with `copy`.
        """
        return self.copy().array

    def view(self) -> np.ndarray[Any, Any]:
        """Return the values of a mmapable array where they lie: read-only, and always as they are.

        Shape ``(max_entries,)``. Nothing is copied, and what programs write shows at once. It stays
        usable after the map is closed, whose memory lives as long as a view does. Raises `MapError`
        unless the map is an array with ``BPF_F_MMAPABLE``.
        """
        from pytest_bpf.kernel.values.dtypes import dtype  # noqa: PLC0415 (numpy, when asked for)

        if not self._reads.mappable:
            raise MapError(
                f"map {self.name!r} ({self.type}) has no memory to look at: that takes an array "
                "with __uint(map_flags, BPF_F_MMAPABLE); snapshot() copies any map"
            )
        try:
            return self._reads.memory(self.fd).view(dtype(self.layout.value))
        except OSError as error:
            raise self._failed(error, "mapping its memory") from None

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) as bytes, read in bulk; of a per-CPU map all CPUs' values at once."""
        return self.copy().raw_items()

    # -- inside ------------------------------------------------------------------------------

    def _update(self, key: Any, value: Any, flag: str = "any", *, lock: bool = False) -> None:
        number = _flag(flag) | (elements.LOCK if lock else elements.ANY)
        with self.layout.key_bytes(key) as raw, self.layout.value_bytes(value) as content:
            try:
                self.layout.runner(value)(elements.update, self.fd, raw, content, number)
            except OSError as error:
                raise self._failed(error, "update with lock" if lock else "update", key) from None

    def _keyed(self) -> None:
        if self.type in KEYLESS:
            ways = "push and 'in'" if self.type == "bloom_filter" else "push, peek and pop"
            raise MapError(
                f"map {self.name!r} is {with_article(self.type)}: it has no keys, but {ways}"
            )
        if self.type in RINGS:
            raise self._no_elements(RINGS[self.type])

    def _no_elements(self, way: str) -> MapError:
        return MapError(f"map {self.name!r} is {with_article(self.type)}: {way}")

    def _partly(self, error: batches.PartialError, action: str, keys: Any) -> MapError:
        code, done, count = error.errno or 0, error.done, len(keys)
        why = explain(code, self.type, action, self.max_entries)
        key = keys[done]
        key = key.tolist() if hasattr(key, "dtype") else key
        return MapError(
            f"map {self.name!r} ({self.type}): key {key!r} cannot be {action}: {why}; "
            f"of {count} elements the {done} before it are {action}, the others are not",
            code,
        )

    def _failed(self, error: OSError, action: str, key: Any = ABSENT) -> Exception:
        code = error.errno or 0
        if code == errno.ENOENT and key not in (ABSENT, None):
            return KeyError(key)
        if code == errno.ENOENT and self.type in QUEUES:
            return KeyError(f"{self.type} {self.name!r} is empty")
        at = "" if key is ABSENT or key is None else f" of key {key!r}"
        why = explain(code, self.type, action, self.max_entries)
        return MapError(f"map {self.name!r} ({self.type}): {action}{at} failed: {why}", code)


def _flag(name: object) -> int:
    if not isinstance(name, str) or name not in _FLAGS:
        raise MapError(f"flag {name!r} is none of {', '.join(_FLAGS)}")
    return _FLAGS[name]

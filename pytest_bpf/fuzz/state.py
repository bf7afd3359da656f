"""What an object's programs leave behind: maps, global variables and events, as bytes.

A `State` reads all of it into a plain value, and puts back what an earlier reading was.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.kernel.maps import batches, elements
from pytest_bpf.kernel.ringbuf.perf_rings import PerfRings
from pytest_bpf.kernel.ringbuf.ring import Ring
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.values.codec import codec
from pytest_bpf.kinds.maps import map_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_bpf.kernel.ringbuf.rows import RowBatch
    from pytest_bpf.objects import Map, Object

Content = bytes | dict[bytes, bytes]
"""Values end to end of a map whose keys are numbers, or values by key."""

READABLE = frozenset(
    {"hash", "array", "percpu_hash", "percpu_array", "lru_hash", "lru_percpu_hash", "lpm_trie"}
)
"""The types of maps whose elements are read and put back."""


BUFFERS = frozenset({"ringbuf", "perf_event_array"})
"""The types of maps whose events are read."""

PERF_BYTES = 1 << 16
"""The size of a perf buffer of a CPU, which the events of a batch have to fit into."""


@dataclass(frozen=True)
class Snapshot:
    """The contents of maps and the values of variables, by name, and the events since the last."""

    maps: Mapping[str, Content]
    variables: Mapping[str, bytes]
    events: Mapping[str, tuple[bytes, ...]]


SPARE = 64
"""Elements for which there is room besides those that a map may have: a bucket must fit."""

LARGE = 1 << 24
"""Bytes of a map that is read in parts."""


class _Room:
    """Memory for the keys and values of a batch."""

    def __init__(self, most: int, key_size: int, value_size: int) -> None:
        self.most = most
        self.keys = ctypes.create_string_buffer(most * key_size)
        self.values = ctypes.create_string_buffer(most * value_size)
        self.count = ctypes.c_uint32()
        position = ctypes.create_string_buffer(max(8, key_size))
        self.arguments = (position, self.keys, self.values, ctypes.byref(self.count), None)


class Table:
    """One map: its whole content is read and put back by batches."""

    def __init__(self, source: Map) -> None:
        self.map = source
        kind = map_kind(source.type)
        self.indexed, self.per_cpu = kind.indexed, kind.per_cpu
        cpus = elements.possible_cpus() if self.per_cpu else 1
        self.width = -(-source.value_size // 8) * 8 * cpus if self.per_cpu else source.value_size
        self._hashed, self._lru = kind.hashed, source.type.startswith("lru_")

    def read(self) -> Content:
        """Return the content now."""
        read = self._at_once() or self._by_parts()
        if self.indexed:
            return read.values
        keys, values = (batches.split(part, read.count) for part in (read.keys, read.values))
        return dict(zip(keys, values, strict=True))

    @cached_property
    def _room(self) -> _Room | None:
        """Memory for the whole content, used again and again; None for a map that is too large."""
        most = self.map.max_entries + SPARE
        if most * (self.map.key_size + self.width) > LARGE:
            return None
        return _Room(most, self.map.key_size, self.width)

    def _at_once(self) -> batches.Content | None:
        """Return the content by one call; None where the kernel does not give all of it so."""
        room = self._room
        if room is None:
            return None
        room.count.value = room.most
        code = libbpf.function("bpf_map_lookup_batch")(self.map.fd, None, *room.arguments)
        count = room.count.value
        if code != -errno.ENOENT and not (code == 0 and count == self.map.max_entries):
            return None
        keys = ctypes.string_at(room.keys, count * self.map.key_size)
        return batches.Content(keys, ctypes.string_at(room.values, count * self.width), count)

    def _by_parts(self) -> batches.Content:
        source = self.map
        sizes = (source.key_size, self.width, source.max_entries)
        return batches.read(source.fd, *sizes, hashed=self._hashed)

    def write(self, before: Content, now: Content) -> None:
        """Put the content ``before`` in the place of what is there ``now``: what differs alone.

        Which element of an LRU map goes first depends on all that was written, so all of it is.
        """
        if before == now:
            return
        fd = self.map.fd
        if isinstance(before, bytes):
            assert isinstance(now, bytes)
            rows = [np.frombuffer(c, np.uint8).reshape(-1, self.width) for c in (before, now)]
            changed = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
            keys, values = changed.astype(np.uint32).tobytes(), rows[0][changed].tobytes()
            batches.update(fd, keys, values, len(changed))
            return
        assert isinstance(now, dict)
        if self._lru:
            gone, back = list(now), before
        else:
            back = {key: value for key, value in before.items() if now.get(key) != value}
            gone = [key for key in now if key not in before]
        batches.delete(fd, b"".join(gone), len(gone))
        batches.update(fd, b"".join(back), b"".join(back.values()), len(back))


class State:
    """The state of an object; ``unseen`` are the maps that it cannot read, with their types.

    Without ``events`` it leaves the buffers of events to who reads them: a perf buffer has one
    reader, and another one takes its place.
    """

    def __init__(self, obj: Object, leave_out: Iterable[str] = (), *, events: bool = True) -> None:
        left = set(leave_out)
        maps = {name: entry for name, entry in obj.maps.items() if name not in left}
        self.tables = {n: Table(entry) for n, entry in maps.items() if entry.type in READABLE}
        buffers = {n: entry for n, entry in maps.items() if entry.type in BUFFERS}
        self._buffers = buffers if events else {}
        self._rings: dict[str, Ring | PerfRings] = {
            n: Ring(entry.fd, entry.max_entries) if entry.type == "ringbuf" else _perf_buffer(entry)
            for n, entry in self._buffers.items()
        }
        self.unseen = {
            n: entry.type for n, entry in maps.items() if n not in self.tables and n not in buffers
        }
        self.events = frozenset(self._buffers)
        self.memory = {
            name: memory
            for name in obj.globals
            if (memory := obj.globals.memory(name)) is not None and name not in left
        }
        self.types = {name: obj.globals.variable(name).type for name in self.memory}

    def read(self) -> Snapshot:
        """Return the whole state; the events are those since the last reading."""
        return Snapshot(
            {name: table.read() for name, table in self.tables.items()},
            {name: bytes(memory) for name, memory in self.memory.items()},
            {name: self._events(name, ring) for name, ring in self._rings.items()},
        )

    def _events(self, name: str, ring: Ring | PerfRings) -> tuple[bytes, ...]:
        """Return the events since the last time.

        The kernel leaves in a perf buffer what is there behind records whose size is no multiple of
        8 bytes, so the next ones get an empty buffer.
        """
        events = _records(ring)
        if events and isinstance(ring, PerfRings):
            ring.close()
            self._rings[name] = _perf_buffer(self._buffers[name])
        return events

    def write(self, before: Snapshot, now: Snapshot | None = None) -> None:
        """Put the state back to ``before``; ``now`` is what was read last, if nothing ran since."""
        now = now or self.read()
        for name, table in self.tables.items():
            table.write(before.maps[name], now.maps[name])
        for name, memory in self.memory.items():
            memory[:] = before.variables[name]

    def show(self, name: str, raw: bytes) -> str:
        """Return a variable's or a map's value as text, typed by BTF where it is."""
        value = self.value(name, raw)
        return f"{value.hex() if isinstance(value, bytes) else value!r:.200}"

    def value(self, name: str, raw: bytes) -> Any:
        """Return the value of a variable or of a map, typed by BTF, else its bytes."""
        source = self.types.get(name)
        if source is None and name in self.tables:
            source = self.tables[name].map.layout.value
        try:
            return codec(source).decode(raw, 0) if source is not None else raw
        except (ValueError, TypeError, struct.error):
            return raw

    def close(self) -> None:
        """Let go of the memory that it shares with the programs."""
        for memory in self.memory.values():
            memory.release()
        for ring in self._rings.values():
            ring.close()
        self.memory.clear()
        self._rings.clear()


def _perf_buffer(source: Map) -> PerfRings:
    return PerfRings(source.fd, PERF_BYTES)


def _records(ring: Ring | PerfRings) -> tuple[bytes, ...]:
    taken: list[RowBatch] = []
    ring.drain(taken)
    return tuple(
        batch.data[at : at + row.length]
        for batch in taken
        for row in batch.rows
        for at in range(row.offset, row.offset + row.many * row.stride, row.stride)
    )


def sums(raw: bytes, value_size: int) -> bytes:
    """Return the values of all CPUs added up word by word, as one CPU would have them.

    ``raw`` are values of all CPUs, each made of numbers of 8 bytes.
    """
    cpus = elements.possible_cpus()
    stride = -(-value_size // 8)
    words = struct.unpack(f"={len(raw) // 8}Q", raw)
    totals = []
    for first in range(0, len(words), stride * cpus):
        for at in range(value_size // 8):
            column = words[first + at : first + stride * cpus : stride]
            totals.append(sum(column) % 2**64)
    return struct.pack(f"={len(totals)}Q", *totals)

"""A map's elements as bytes: one call of bpf(2) each, and many at once where the kernel can.

Every function takes the map's file descriptor and raises `OSError` with the kernel's code; what a
code means for a kind of map is not decided here.
"""

from __future__ import annotations

import ctypes
import errno
from functools import cache
from typing import TYPE_CHECKING

from pytest_bpf.kernel import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY, NOEXIST, EXIST = range(3)
"""``BPF_ANY``, ``BPF_NOEXIST``, ``BPF_EXIST``: the flags of an update."""


BATCH = 1 << 20
"""Bytes of keys and values that one batch takes."""

NOT_SUPPORTED = 524
"""The kernel's own ENOTSUPP, which has no name outside of it."""


@cache
def possible_cpus() -> int:
    """Return how many CPUs the kernel could ever have: per-CPU values come one for each."""
    return int(libbpf.call("libbpf_num_possible_cpus"))


def lookup(fd: int, key: bytes | None, size: int) -> bytes:
    """Return the value of ``size`` bytes under ``key``; ENOENT when there is none."""
    value = ctypes.create_string_buffer(size)
    libbpf.call("bpf_map_lookup_elem_flags", fd, key, value, 0)
    return value.raw


def member(fd: int, value: bytes) -> bool:
    """Say whether a bloom filter may hold ``value``; False is certain."""
    try:
        libbpf.call("bpf_map_lookup_elem_flags", fd, None, value, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


def take(fd: int, key: bytes | None, size: int) -> bytes:
    """Return the value under ``key`` and delete it, in one step."""
    value = ctypes.create_string_buffer(size)
    libbpf.call("bpf_map_lookup_and_delete_elem", fd, key, value)
    return value.raw


def update(fd: int, key: bytes | None, value: bytes, flags: int = ANY) -> None:
    """Set the value under ``key``; EEXIST or ENOENT where ``flags`` forbid it, E2BIG when full."""
    libbpf.call("bpf_map_update_elem", fd, key, value, flags)


def delete(fd: int, key: bytes) -> None:
    """Delete ``key``; ENOENT when there is none."""
    libbpf.call("bpf_map_delete_elem", fd, key)


def keys(fd: int, size: int) -> Iterator[bytes]:
    """Yield the keys of ``size`` bytes, one call each; see `snapshot` for many at once."""
    following = ctypes.create_string_buffer(size)
    key: bytes | None = None
    while True:
        try:
            libbpf.call("bpf_map_get_next_key", fd, key, following)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        key = following.raw
        yield key


def snapshot(fd: int, key_size: int, value_size: int, max_entries: int) -> tuple[bytes, bytes, int]:
    """Return all keys and all values, each end to end, and how many there are.

    By batches where the kernel has them (5.6) for this kind of map, one by one else. A map that
    changes meanwhile gives each element as it was at some moment, and elements that stayed exactly
    once.
    """
    try:
        return _batches(fd, key_size, value_size, max_entries)
    except OSError as error:
        if error.errno not in {errno.ENOTSUP, errno.EINVAL, NOT_SUPPORTED}:
            raise
    found: dict[bytes, bytes] = {}
    for key in keys(fd, key_size):
        try:
            found[key] = lookup(fd, key, value_size)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
    return b"".join(found), b"".join(found.values()), len(found)


def _batches(fd: int, key_size: int, value_size: int, max_entries: int) -> tuple[bytes, bytes, int]:
    size = max(1, min(max_entries, max(BATCH // (key_size + value_size), 64)))
    position = ctypes.create_string_buffer(max(key_size, 8))
    all_keys, all_values, total = [], [], 0
    started = False
    while True:
        found = ctypes.create_string_buffer(size * key_size)
        values = ctypes.create_string_buffer(size * value_size)
        count = ctypes.c_uint32(size)
        into = (position, found, values, ctypes.byref(count), None)
        try:
            libbpf.call("bpf_map_lookup_batch", fd, position if started else None, *into)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # a bucket holds more than fits: nothing was taken
                size *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            finished = True
        else:
            finished = False
        started = True
        total += count.value
        all_keys.append(ctypes.string_at(found, count.value * key_size))
        all_values.append(ctypes.string_at(values, count.value * value_size))
        if finished:
            return b"".join(all_keys), b"".join(all_values), total

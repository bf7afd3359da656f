"""A map's elements as bytes, one call of bpf(2) each; many: :mod:`pytest_bpf.kernel.maps.batches`.

Every function takes the map's file descriptor and raises `OSError` with the kernel's code; what a
code means for a kind of map is not decided here.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from functools import cache
from typing import TYPE_CHECKING

from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY, NOEXIST, EXIST, LOCK = 0, 1, 2, 4
"""``BPF_ANY``, ``BPF_NOEXIST``, ``BPF_EXIST``, ``BPF_F_LOCK``: the flags of an update."""


@cache
def possible_cpus() -> int:
    """Return how many CPUs the kernel could ever have: per-CPU values come one for each."""
    return int(libbpf.call("libbpf_num_possible_cpus"))


def create(
    kind: str, key_size: int, value_size: int, max_entries: int, flags: int = 0, *, inner: int = 0
) -> int:
    """Create a map of type ``kind`` (``"hash"``) without BTF; return its descriptor.

    ``inner`` is the descriptor of the map that the values of a map of maps are like.
    """
    options = struct.pack("=Q6IQ2I", 48, 0, 0, 0, 0, inner, flags, 0, 0, 0)
    sizes = (key_size, value_size, max_entries)
    number = enums.map_type_id(kind)
    return int(libbpf.call("bpf_map_create", number, b"pytest_bpf", *sizes, options))


def lookup(fd: int, key: bytes | None, size: int, flags: int = ANY) -> bytes:
    """Return the value of ``size`` bytes under ``key``; ENOENT when there is none."""
    value = ctypes.create_string_buffer(size)
    libbpf.call("bpf_map_lookup_elem_flags", fd, key, value, flags)
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
    """Yield the keys of ``size`` bytes, one call each.

    When the key that it stands on is deleted meanwhile, it begins again.
    """
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

"""Many elements of a map at once, as bytes end to end: by batches where the kernel has them (5.6).

Every function takes the map's file descriptor and raises `OSError` with the kernel's code.
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

BATCH = 1 << 20
"""Bytes of keys and values that one batch takes."""

NOT_SUPPORTED = 524
"""The kernel's own ENOTSUPP, which has no name outside of it."""

LACKING = frozenset({errno.ENOTSUP, errno.EINVAL, NOT_SUPPORTED})
"""What a kernel says that has no batches for this kind of map."""

RESTARTS = 100
"""How often reading one by one may be sent back to the beginning by deletions."""


@dataclass(frozen=True)
class Content:
    """Keys and values, each end to end, and how many there are; of all CPUs in a per-CPU map."""

    keys: bytes
    values: bytes
    count: int


_T = TypeVar("_T")


class PartialError(OSError):
    """A call that failed in the middle: the first ``done`` elements were written or deleted."""

    def __init__(self, error: OSError, done: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.done = done


def read(
    fd: int, key_size: int, value_size: int, max_entries: int, *, hashed: bool = False
) -> Content:
    """Return all elements: by batches, or one by one where there are none for this kind of map.

    Batches take each bucket of a hash map (``hashed``) under its lock. For other kinds the kernel
    goes from key to key, and a key that is deleted sends it back to the beginning: what it meets
    again counts once. Raises EAGAIN when that goes on and on.
    """
    try:
        whole = join(by_batches(fd, key_size, value_size, max_entries))
    except OSError as error:
        if error.errno not in LACKING:
            raise
        return one_by_one(fd, key_size, value_size)
    keys = [] if hashed else split(whole.keys, whole.count)
    if len(set(keys)) == len(keys):
        return whole
    return _content(dict(zip(keys, split(whole.values, whole.count), strict=True)))


def by_batches(
    fd: int, key_size: int, value_size: int, max_entries: int, most: int | None = None
) -> Iterator[Content]:
    """Yield the elements, batch by batch; ENOTSUPP and the like where there are no batches.

    A batch is of ``most`` elements or, when that is None, of about `BATCH` bytes.
    """
    size = max(1, min(max_entries, most or max(BATCH // max(key_size + value_size, 1), 64)))
    position = ctypes.create_string_buffer(max(key_size, 8))
    before = None
    total = 0
    while True:
        keys_read = (ctypes.c_char * (size * key_size))()
        values = (ctypes.c_char * (size * value_size))()
        count = ctypes.c_uint32(size)
        into = (position, keys_read, values, ctypes.byref(count), None)
        finished = False
        try:
            libbpf.call("bpf_map_lookup_batch", fd, before, *into)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # a bucket holds more than fits: nothing was taken
                size *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            finished = True
        keys = ctypes.string_at(keys_read, count.value * key_size)
        yield Content(keys, ctypes.string_at(values, count.value * value_size), count.value)
        if finished:
            return
        total += count.value
        if total > RESTARTS * (1 + max_entries):
            raise _deleted_too_fast()
        before = position


def join(parts: Iterable[Content]) -> Content:
    """Return several contents as one."""
    listed = list(parts)
    keys, values = (b"".join(getattr(part, of) for part in listed) for of in ("keys", "values"))
    return Content(keys, values, sum(part.count for part in listed))


def one_by_one(fd: int, key_size: int, value_size: int) -> Content:
    """Return all elements by a call for each key and each value.

    Raises EAGAIN when keys are deleted faster than they can be read.
    """
    content: dict[bytes, bytes] = {}
    again = 0
    for key in elements.keys(fd, key_size):
        again += key in content
        if again > RESTARTS * (1 + len(content)):
            raise _deleted_too_fast()
        try:
            content[key] = elements.lookup(fd, key, value_size)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
    return _content(content)


def split(ends: bytes, count: int) -> list[bytes]:
    """Return the ``count`` parts of equal size that lie end to end."""
    size = len(ends) // count if count else 1
    return [ends[at : at + size] for at in range(0, count * size, size)]


def _content(elements: Mapping[bytes, bytes]) -> Content:
    return Content(b"".join(elements), b"".join(elements.values()), len(elements))


def _deleted_too_fast() -> OSError:
    return OSError(errno.EAGAIN, "keys are deleted faster than they can be read")


def update(fd: int, keys: bytes, values: bytes, count: int, flags: int = elements.ANY) -> None:
    """Write ``count`` elements in order; `PartialError` at the first that is refused.

    Batches take only `elements.ANY`. With other flags the elements are written one by one.
    """
    if not count:
        return
    if flags == elements.ANY:
        done = ctypes.c_uint32(count)
        try:
            libbpf.call("bpf_map_update_batch", fd, keys, values, ctypes.byref(done), None)
        except OSError as error:
            if error.errno not in LACKING:
                raise PartialError(error, _done(done, count)) from None
        else:
            return
    _each(
        list(zip(split(keys, count), split(values, count), strict=True)),
        lambda element: elements.update(fd, *element, flags),
    )


def delete(fd: int, keys: bytes, count: int) -> int:
    """Delete ``count`` keys in order, pass over those that are missing, return how many were there.

    Raises `PartialError` at the first that is refused.
    """
    if not count:
        return 0
    size, at, deleted = len(keys) // count, 0, 0
    start = ctypes.cast(ctypes.c_char_p(keys), ctypes.c_void_p).value or 0
    while at < count:
        done = ctypes.c_uint32(count - at)
        try:
            libbpf.call("bpf_map_delete_batch", fd, start + at * size, ctypes.byref(done), None)
        except OSError as error:
            if error.errno in LACKING:
                break
            before = _done(done, count - at)
            deleted, at = deleted + before, at + before
            if error.errno != errno.ENOENT:
                raise PartialError(error, at) from None
            at += 1
        else:
            return deleted + done.value

    def delete_one(key: bytes) -> None:
        nonlocal deleted
        try:
            elements.delete(fd, key)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            deleted += 1

    _each(split(keys, count)[at:], delete_one, at)
    return deleted


def _done(count: ctypes.c_uint32, total: int) -> int:
    """Return how many were done before an error: the kernel may not have come to telling it."""
    return 0 if count.value == total else count.value


def _each(items: Sequence[_T], do: Callable[[_T], object], first: int = 0) -> None:
    for number, element in enumerate(items, first):
        try:
            do(element)
        except OSError as error:
            raise PartialError(error, number) from None

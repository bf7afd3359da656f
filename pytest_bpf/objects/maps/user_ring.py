"""The writing end of a user ring buffer, which a program drains (``bpf_user_ringbuf_drain``)."""

from __future__ import annotations

import ctypes
import errno
import weakref
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.values.codec import codec

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type


class UserRing:
    """Writes records into a user ring buffer; libbpf maps it at the first one."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._pointer = 0
        self._free: weakref.finalize[..., Any] | None = None

    def write(self, fd: int, value: Any, c_type: Type | None) -> None:
        """Append one record of a C type, or bytes; the next drain sees it.

        Raises `MapError` when there is no room for it until a program has drained the buffer.
        """
        record = self._record(value, c_type)
        if self._free is None:
            self._open(fd)
        if not record or len(record) + 8 > self._size:
            raise MapError(
                f"map {self._name!r} (user_ringbuf): a record has 1 to {self._size - 8} bytes, "
                f"not {len(record)}"
            )
        try:
            place = libbpf.call("user_ring_buffer__reserve", self._pointer, len(record))
        except OSError as error:
            code = error.errno or 0
            reason = error.strerror
            if code == errno.ENOSPC:
                reason = f"its {self._size} bytes are full until a program drains it (ENOSPC)"
            raise MapError(
                f"map {self._name!r} (user_ringbuf): no room for {len(record)} bytes: {reason}",
                code,
            ) from None
        ctypes.memmove(place, record, len(record))
        libbpf.function("user_ring_buffer__submit")(self._pointer, place)

    def close(self) -> None:
        """Unmap it; a second time does nothing."""
        if self._free is not None:
            self._free()

    def _open(self, fd: int) -> None:
        try:
            self._pointer = libbpf.call("user_ring_buffer__new", fd, None)
        except OSError as error:
            raise MapError(
                f"map {self._name!r} (user_ringbuf) cannot be written: {error.strerror}",
                error.errno or 0,
            ) from None
        free = libbpf.function("user_ring_buffer__free")
        self._free = weakref.finalize(self, free, self._pointer)

    def _record(self, value: Any, c_type: Type | None) -> bytes:
        if c_type is not None and c_type.size:
            return codec(c_type).encode(value, f"map {self._name!r}, record")
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise MapError(
            f"map {self._name!r} (user_ringbuf) declares no type: give bytes, or say what it is by "
            'type="struct ..."'
        )

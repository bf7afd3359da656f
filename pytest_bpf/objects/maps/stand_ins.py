"""Values that stand for a thing, and equal it: a program's id, a socket's cookie, an interface.

``obj.maps["jumps"][0] = program`` writes a descriptor; what is read is the program's id, and equal
to the program.
"""

from __future__ import annotations

import socket
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.values.records import Record
from pytest_bpf.kinds.maps import MAPS_OF_MAPS, VALUED_BY_DESCRIPTOR
from pytest_bpf.objects.maps import devices

if TYPE_CHECKING:
    from collections.abc import Callable

SO_COOKIE = 57


class Handle(int):
    """The number that is read for what was written by its descriptor; equal to the thing itself."""

    __slots__ = ()
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return int.__eq__(self, _number(other)) is True

    def __ne__(self, other: object) -> bool:
        return not self == other


class Device(int):
    """The index of an interface in a device map; equal to the interface."""

    __slots__ = ()
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return int.__eq__(self, other) is True or devices.equal(int(self), other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def stand_in(kind: str) -> Callable[[Any], Any] | None:
    """Return what a value of such a map is given to before it is shown; None for most kinds."""
    if kind in devices.KINDS:
        return _device
    return Handle if kind in VALUED_BY_DESCRIPTOR - MAPS_OF_MAPS else None


def _number(thing: object) -> Any:
    """Return what the kernel gives back for a thing: an id, or a cookie."""
    if isinstance(thing, socket.socket):
        try:
            return int.from_bytes(thing.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")
        except OSError:  # it is closed
            return None
    return getattr(thing, "id", thing)


def _device(value: Any) -> Any:
    if isinstance(value, Record):
        return tuple.__new__(_device_class(type(value)), value)
    return Device(value) if isinstance(value, int) else value


@cache
def _device_class(base: Any) -> Any:
    """Return the class of a struct of an interface, or of a queue, and a program behind it."""

    def equals(self: Any, other: object) -> bool:
        return bool(base.__eq__(self, other)) or devices.equal(self, other)

    names = {"__slots__": (), "__eq__": equals, "__hash__": base.__hash__}
    return type(base.__name__, (base,), names)

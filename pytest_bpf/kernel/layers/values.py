"""What fields of headers hold: addresses that equal their text, and options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Address4(IPv4Address):
    """An IPv4 address that equals its text too: ``packet.ip.src == "192.0.2.1"``."""

    __slots__ = ()
    __hash__ = IPv4Address.__hash__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == other
        return super().__eq__(other)


class Address6(IPv6Address):
    """An IPv6 address that equals its text too, in any spelling of it."""

    __slots__ = ()
    __hash__ = IPv6Address.__hash__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            try:
                return super().__eq__(IPv6Address(other))
            except ValueError:
                return False
        return super().__eq__(other)


address4 = lru_cache(4096)(Address4)
address6 = lru_cache(4096)(Address6)
"""The addresses of packed bytes; the same few come again and again."""


def checksum(data: bytes) -> int:
    """Return the Internet checksum of ``data`` (RFC 1071)."""
    number = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    return -number % 0xFFFF  # the ones' complement sum of 16-bit words is the rest by 65535


def mac(data: bytes, at: int) -> str:
    """Return the six bytes at ``at`` as a hardware address: ``"02:00:00:00:00:01"``."""
    return data[at : at + 6].hex(":")


@dataclass(frozen=True)
class Option:
    """An option of a header: its ``name``, its number ``kind``, and what it says as ``value``.

    ``value`` is a number, a tuple of numbers or text where the option has a known form, else the
    bytes behind its length. ``data`` are these bytes, ``raw`` is all of the option.
    """

    name: str
    kind: int
    value: Any
    data: bytes
    raw: bytes


Form = tuple[str, "Callable[[bytes], Any] | None"]
"""The name of an option, and how its value is read."""


def number(data: bytes) -> int:
    """Return big-endian bytes as a number."""
    return int.from_bytes(data, "big")


def words(data: bytes) -> tuple[int, ...]:
    """Return big-endian words of four bytes; a rest that is no word is left out."""
    return tuple(number(data[at : at + 4]) for at in range(0, len(data) - 3, 4))


def options(
    area: bytes,
    forms: Mapping[int, Form],
    *,
    single: frozenset[int] = frozenset({0, 1}),
    unit: int = 1,
    extra: int = 0,
    end: int | None = 0,
) -> tuple[Option, ...]:
    """Return the options of ``area`` as far as they go.

    Options of ``single`` are one byte. All others have a byte of length behind their number: they
    are that many units of ``unit`` bytes long, and ``extra`` bytes. What does not fit is one last
    option ``damaged``. Behind the option ``end`` is padding.
    """
    result: list[Option] = []
    at = 0
    while at < len(area):
        kind = area[at]
        name, read = forms.get(kind, (f"option {kind}", None))
        if kind in single:
            raw = area[at:] if kind == end else area[at : at + 1]
            result.append(Option(name, kind, None, raw[1:], raw))
            at += len(raw)
            continue
        size = area[at + 1] * unit + extra if at + 1 < len(area) else 0
        raw = area[at : at + size]
        if size < 2 or len(raw) < size:
            result.append(Option("damaged", kind, area[at:], area[at:], area[at:]))
            break
        data = raw[2:]
        result.append(Option(name, kind, read(data) if read else data, data, raw))
        at += size
    return tuple(result)

"""ICMP, and ICMPv6 with neighbour discovery: RFC 792, 4443, 4861."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.kernel.layers.values import Address6, Form, Option, address6, mac, number, options

if TYPE_CHECKING:
    from pytest_bpf.kernel.layers.link import Bounds

ECHOES = {0, 8, 128, 129}
QUOTES = {3, 4, 5, 11, 12}
"""ICMP messages that quote the packet that they are about."""

QUOTES_6 = {1, 2, 3, 4}
DISCOVERY = {133: 8, 134: 16, 135: 24, 136: 24, 137: 40}
"""Bytes before the options of each message of neighbour discovery."""


def _lladdr(data: bytes) -> object:
    return mac(data, 0) if len(data) == 6 else data


NDP_OPTIONS: dict[int, Form] = {
    1: ("source_lladdr", _lladdr),
    2: ("target_lladdr", _lladdr),
    3: ("prefix", None),
    4: ("redirected", None),
    5: ("mtu", number),
}


class Icmp(NamedTuple):
    """ICMP or ICMPv6.

    ``rest`` are the four bytes behind the checksum; of an echo they are ``identifier`` and
    ``sequence``, of a packet that is too big the ``mtu``. ``target`` is the address that neighbour
    discovery is about, and ``options`` are its options.
    """

    type: int
    code: int
    checksum: int
    rest: bytes
    body: bytes = b""
    target: Address6 | None = None
    options: tuple[Option, ...] = ()

    @property
    def identifier(self) -> int:
        """Identifier of an echo."""
        return number(self.rest[:2])

    @property
    def sequence(self) -> int:
        """Sequence number of an echo."""
        return number(self.rest[2:])

    @property
    def mtu(self) -> int:
        """The largest packet that would pass, of a message that says so."""
        return number(self.rest if self.type == 2 else self.rest[2:])


def icmp_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where the header of ICMP ends; an error quotes a packet."""
    return at + 8, end, ">ip?" if data[at] in QUOTES else ""


def icmp(data: bytes, at: int, _end: int) -> Icmp:
    """Read ICMP."""
    return Icmp(data[at], data[at + 1], number(data[at + 2 : at + 4]), data[at + 4 : at + 8])


def icmpv6_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where the header of ICMPv6 ends; all of a discovery belongs to it."""
    kind = data[at]
    if kind in DISCOVERY:
        return max(end, at + DISCOVERY[kind]), end, ""
    return at + 8, end, ">ipv6?" if kind in QUOTES_6 else ""


def icmpv6(data: bytes, at: int, end: int) -> Icmp:
    """Read ICMPv6."""
    kind = data[at]
    head = (kind, data[at + 1], number(data[at + 2 : at + 4]), data[at + 4 : at + 8])
    size = DISCOVERY.get(kind)
    if size is None:
        return Icmp(*head)
    target = address6(data[at + 8 : at + 24]) if size >= 24 else None
    body = data[at + (24 if target else 8) : at + size]
    area = options(data[at + size : end], NDP_OPTIONS, single=frozenset(), unit=8, end=None)
    return Icmp(*head, body, target, area)

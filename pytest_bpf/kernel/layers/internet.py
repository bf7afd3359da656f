"""IPv4 with options, IPv6 with its extension headers: RFC 791, 8200, 4302."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.kernel.layers.values import (
    Address4,
    Address6,
    Form,
    Option,
    address4,
    address6,
    number,
    options,
    words,
)

if TYPE_CHECKING:
    from pytest_bpf.kernel.layers.link import Bounds

PROTOCOLS = {
    1: "icmp",
    4: ">ip",
    6: "tcp",
    17: "udp",
    41: ">ipv6",
    47: "gre",
    0: "hop_by_hop",
    43: "routing",
    44: "fragment",
    51: "authentication",
    58: "icmpv6",
    60: "destination",
}
"""The layer behind each IP protocol; with ``>`` a packet within this one."""

OPTIONS_4: dict[int, Form] = {
    0: ("end", None),
    1: ("nop", None),
    7: ("record_route", words),
    68: ("timestamp", None),
    130: ("security", None),
    131: ("loose_route", words),
    137: ("strict_route", words),
    148: ("router_alert", number),
}
OPTIONS_6: dict[int, Form] = {
    0: ("pad1", None),
    1: ("padn", None),
    5: ("router_alert", number),
    0xC2: ("jumbo", number),
    0xC9: ("home_address", None),
}

_V4 = Struct("!BBHHHBBH4s4s")
_V6 = Struct("!IHBB16s16s")


class IPv4(NamedTuple):
    """The IPv4 header. ``fragment_offset`` is in bytes, ``header_length`` and ``length`` too."""

    version: int
    header_length: int
    tos: int
    length: int
    id: int
    reserved_flag: bool
    dont_fragment: bool
    more_fragments: bool
    fragment_offset: int
    ttl: int
    protocol: int
    checksum: int
    src: Address4
    dst: Address4
    options: tuple[Option, ...]


class IPv6(NamedTuple):
    """The IPv6 header. ``length`` is that of what follows it, in bytes."""

    version: int
    traffic_class: int
    flow_label: int
    length: int
    next_header: int
    hop_limit: int
    src: Address6
    dst: Address6


class Extension(NamedTuple):
    """An extension header of IPv6; ``options`` of those that have options, else ``data``."""

    next_header: int
    length: int
    options: tuple[Option, ...]
    data: bytes


class Fragment(NamedTuple):
    """The fragment header of IPv6; ``offset`` is in bytes."""

    next_header: int
    reserved: int
    offset: int
    reserved_bits: int
    more_fragments: bool
    id: int


def ipv4_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where an IPv4 header and its packet end, and what follows."""
    size = max((data[at] & 15) * 4, 20)
    total = data[at + 2] << 8 | data[at + 3]
    stop = at + total if size <= total <= end - at else end
    later_fragment = (data[at + 6] & 0x1F) << 8 | data[at + 7]
    return at + size, stop, "" if later_fragment else PROTOCOLS.get(data[at + 9], "")


def ipv4(data: bytes, at: int, end: int) -> IPv4:
    """Read an IPv4 header."""
    first, tos, length, ident, part, ttl, protocol, checksum, src, dst = _V4.unpack_from(data, at)
    size = (first & 15) * 4
    area = data[at + 20 : end]
    return IPv4(
        first >> 4,
        size,
        tos,
        length,
        ident,
        bool(part & 0x8000),
        bool(part & 0x4000),
        bool(part & 0x2000),
        (part & 0x1FFF) * 8,
        ttl,
        protocol,
        checksum,
        address4(src),
        address4(dst),
        options(area, OPTIONS_4) if area else (),
    )


def ipv6_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where an IPv6 header and its packet end, and what follows."""
    size = data[at + 4] << 8 | data[at + 5]
    stop = at + 40 + size if 0 < size <= end - at - 40 else end
    if size == 0 and data[at + 6] != 0:  # only a jumbogram, by its option, has no length
        stop = min(at + 40, end)
    return at + 40, stop, PROTOCOLS.get(data[at + 6], "")


def ipv6(data: bytes, at: int, _end: int) -> IPv6:
    """Read an IPv6 header."""
    first, length, following, hops, src, dst = _V6.unpack_from(data, at)
    return IPv6(
        first >> 28,
        first >> 20 & 0xFF,
        first & 0xFFFFF,
        length,
        following,
        hops,
        address6(src),
        address6(dst),
    )


def extension_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where an extension header ends and what follows."""
    return at + 8 * (data[at + 1] + 1), end, PROTOCOLS.get(data[at], "")


def authentication_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say the same of an authentication header, which counts words of four bytes."""
    return at + 4 * (data[at + 1] + 2), end, PROTOCOLS.get(data[at], "")


def with_options(data: bytes, at: int, end: int) -> Extension:
    """Read a hop-by-hop or destination header."""
    area = options(data[at + 2 : end], OPTIONS_6, single=frozenset({0}), extra=2, end=None)
    return Extension(data[at], data[at + 1], area, b"")


def with_data(data: bytes, at: int, end: int) -> Extension:
    """Read a routing or an authentication header."""
    return Extension(data[at], data[at + 1], (), data[at + 2 : end])


def fragment_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where a fragment header ends; what follows is known of the first fragment alone."""
    later = data[at + 2] << 8 | data[at + 3] & 0xF8
    return at + 8, end, "" if later else PROTOCOLS.get(data[at], "")


def fragment(data: bytes, at: int, _end: int) -> Fragment:
    """Read a fragment header."""
    part = data[at + 2] << 8 | data[at + 3]
    return Fragment(
        data[at],
        data[at + 1],
        part & 0xFFF8,
        part >> 1 & 3,
        bool(part & 1),
        number(data[at + 4 : at + 8]),
    )

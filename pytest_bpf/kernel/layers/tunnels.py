"""GRE, VXLAN and Geneve: RFC 2784 and 2890, 7348, 8926."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.kernel.layers.link import ETHERTYPES
from pytest_bpf.kernel.layers.values import Option, number

if TYPE_CHECKING:
    from pytest_bpf.kernel.layers.link import Bounds


class Gre(NamedTuple):
    """GRE; what its flags do not announce is None."""

    flags: int
    version: int
    type: int
    checksum: int | None
    reserved: int | None
    key: int | None
    sequence: int | None


class Vxlan(NamedTuple):
    """VXLAN."""

    flags: int
    vni: int
    reserved: tuple[int, int]


class Geneve(NamedTuple):
    """Geneve. The ``kind`` of an option is its class, times 256, and its type."""

    version: int
    flags: int
    type: int
    vni: int
    reserved: int
    options: tuple[Option, ...]


def _carried(ethertype: int) -> str:
    layer = ETHERTYPES.get(ethertype, "")
    return f">{layer}" if layer else ""


def gre_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where a GRE header ends and what it carries."""
    size = 4 + 4 * ((data[at] & 0xB0).bit_count())
    return at + size, end, _carried(data[at + 2] << 8 | data[at + 3])


def gre(data: bytes, at: int, end: int) -> Gre:
    """Read a GRE header."""
    words = [number(data[place : place + 4]) for place in range(at + 4, end - 3, 4)]
    flags = data[at]
    check = words.pop(0) if flags & 0x80 else None
    key = words.pop(0) if flags & 0x20 else None
    sequence = words.pop(0) if flags & 0x10 else None
    return Gre(
        flags << 5 | data[at + 1] >> 3,
        data[at + 1] & 7,
        number(data[at + 2 : at + 4]),
        None if check is None else check >> 16,
        None if check is None else check & 0xFFFF,
        key,
        sequence,
    )


def vxlan_bounds(_data: bytes, at: int, end: int) -> Bounds:
    """Say where a VXLAN header ends; it carries an Ethernet frame."""
    return at + 8, end, ">eth"


def vxlan(data: bytes, at: int, _end: int) -> Vxlan:
    """Read a VXLAN header."""
    reserved = (number(data[at + 1 : at + 4]), data[at + 7])
    return Vxlan(data[at], number(data[at + 4 : at + 7]), reserved)


def geneve_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where a Geneve header ends and what it carries."""
    return at + 8 + 4 * (data[at] & 0x3F), end, _carried(data[at + 2] << 8 | data[at + 3])


def geneve(data: bytes, at: int, end: int) -> Geneve:
    """Read a Geneve header."""
    return Geneve(
        data[at] >> 6,
        data[at + 1],
        number(data[at + 2 : at + 4]),
        number(data[at + 4 : at + 7]),
        data[at + 7],
        _geneve_options(data[at + 8 : end]),
    )


def _geneve_options(area: bytes) -> tuple[Option, ...]:
    result = []
    while area:
        size = 4 + 4 * (area[3] & 31) if len(area) >= 4 else len(area) + 1
        if size > len(area):
            result.append(Option("damaged", 0, area, area, area))
            break
        raw, area = area[:size], area[size:]
        kind = number(raw[:3])
        name = f"class {kind >> 8:#06x} type {kind & 0xFF}"
        result.append(Option(name, kind, raw[4:], raw[4:], raw))
    return tuple(result)

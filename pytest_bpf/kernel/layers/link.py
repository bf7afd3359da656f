"""Ethernet, VLAN tags and ARP: IEEE 802.3, 802.1Q and 802.1ad, RFC 826."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from pytest_bpf.kernel.layers.values import Address4, address4, mac

ETHERTYPES = {
    0x0800: "ip",
    0x0806: "arp",
    0x8100: "vlan",
    0x88A8: "vlan",
    0x9100: "vlan",
    0x86DD: "ipv6",
    0x6558: "eth",
}
"""The layer behind each Ethernet type; 0x6558 is an Ethernet frame within GRE or Geneve."""

VERSIONS = {4: "ip", 6: "ipv6"}
"""The layer of each version of IP."""

Bounds = tuple[int, int, str]
"""Where a header ends, where what it carries ends, and the layer of that (empty: unknown)."""


class Ethernet(NamedTuple):
    """The Ethernet header. ``type`` below 1536 is a length."""

    dst: str
    src: str
    type: int


class Vlan(NamedTuple):
    """A VLAN tag: priority, drop eligibility, number, and the type of what follows."""

    priority: int
    drop_eligible: bool
    id: int
    type: int


class Arp(NamedTuple):
    """ARP for IPv4 over Ethernet. ``operation`` 1 asks, 2 answers."""

    hardware: int
    protocol: int
    sizes: tuple[int, int]
    operation: int
    sender_mac: str
    sender_ip: Address4
    target_mac: str
    target_ip: Address4


_ARP = Struct("!HHBBH")


def ethernet_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where an Ethernet header ends and what follows.

    A header of zeros is what a test run puts before the packet of a program that sees no Ethernet.
    """
    kind = data[at + 12] << 8 | data[at + 13]
    if not kind and end > at + 14 and data[at : at + 14] == bytes(14):
        return at + 14, end, VERSIONS.get(data[at + 14] >> 4, "")
    return at + 14, end, ETHERTYPES.get(kind, "")


def ethernet(data: bytes, at: int, _end: int) -> Ethernet:
    """Read an Ethernet header."""
    return Ethernet(mac(data, at), mac(data, at + 6), data[at + 12] << 8 | data[at + 13])


def vlan_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where a tag ends and what follows."""
    return at + 4, end, ETHERTYPES.get(data[at + 2] << 8 | data[at + 3], "")


def vlan(data: bytes, at: int, _end: int) -> Vlan:
    """Read a tag."""
    control = data[at] << 8 | data[at + 1]
    kind = data[at + 2] << 8 | data[at + 3]
    return Vlan(control >> 13, bool(control & 0x1000), control & 0xFFF, kind)


def arp_bounds(_data: bytes, at: int, end: int) -> Bounds:
    """Say where ARP ends; nothing follows."""
    return at + 28, end, ""


def arp(data: bytes, at: int, _end: int) -> Arp:
    """Read ARP."""
    hardware, protocol, hardware_size, protocol_size, operation = _ARP.unpack_from(data, at)
    return Arp(
        hardware,
        protocol,
        (hardware_size, protocol_size),
        operation,
        mac(data, at + 8),
        address4(data[at + 14 : at + 18]),
        mac(data, at + 18),
        address4(data[at + 24 : at + 28]),
    )

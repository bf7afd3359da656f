"""Who has an address: ARP (RFC 826) and neighbour discovery (RFC 4861)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from pytest_bpf.errors.arguments import checked
from pytest_bpf.traffic.packets.ip import ICMPV6, ethernet, ip_frame
from pytest_bpf.traffic.packets.sides import CLIENT, SERVER, addresses, packed, packed_mac

if TYPE_CHECKING:
    from pytest_bpf.traffic.packets.ip import Vlan
    from pytest_bpf.traffic.packets.sides import Side

BROADCAST = "ff:ff:ff:ff:ff:ff"
SOLICITATION, ADVERTISEMENT = 135, 136
SOURCE_ADDRESS, TARGET_ADDRESS = 1, 2
SOLICITED, OVERRIDE = 0x40000000, 0x20000000
"""Types, options and flags of neighbour discovery."""


@dataclass(frozen=True)
class _Group:
    """A multicast or broadcast destination."""

    mac: str
    ipv6: IPv6Address | None = None
    ipv4: None = None


@checked
def arp_frame(
    src: Side = CLIENT,
    dst: Side = SERVER,
    *,
    reply: bool = False,
    vlan: Vlan = None,
) -> bytes:
    """Return an ARP frame: a request to all for the address of ``dst``, or a reply to ``dst``."""
    src, dst = addresses(src), addresses(dst)
    target = packed_mac(dst.mac) if reply else bytes(6)
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2 if reply else 1)
    sides = packed_mac(src.mac) + packed(src, ipv6=False) + target + packed(dst, ipv6=False)
    return ethernet(src, dst if reply else _Group(BROADCAST), 0x0806, vlan) + head + sides


@checked
def ndp_frame(
    src: Side = CLIENT,
    dst: Side = SERVER,
    *,
    reply: bool = False,
    vlan: Vlan = None,
) -> bytes:
    """Return a neighbour solicitation for the address of ``dst``, or an advertisement to it.

    A solicitation goes to the multicast group of the address; both have the option with the
    hardware address of ``src``.
    """
    src, dst = addresses(src), addresses(dst)
    kind, flags, option = SOLICITATION, 0, SOURCE_ADDRESS
    subject, to = packed(dst, ipv6=True), dst
    if reply:
        kind, flags, option = ADVERTISEMENT, SOLICITED | OVERRIDE, TARGET_ADDRESS
        subject = packed(src, ipv6=True)
    else:
        group = IPv6Address(
            int(IPv6Address("ff02::1:ff00:0")) | int.from_bytes(subject[13:], "big")
        )
        to = _Group("33:33:" + group.packed[12:].hex(":"), group)
    message = struct.pack("!BBHI", kind, 0, 0, flags) + subject
    message += bytes((option, 1)) + packed_mac(src.mac)
    return ip_frame(src, to, ICMPV6, message, 2, ipv6=True, ttl=255, tos=0, vlan=vlan)

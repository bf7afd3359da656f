"""Frames for `BPF_PROG_RUN` and raw sockets: Ethernet, VLAN, IPv4, IPv6, UDP, TCP, ICMP echo.

Every checksum and length is right, so a frame sent to a real stack is accepted. Layouts are
those of IEEE 802.3 and 802.1Q and of RFC 791, 8200, 768, 9293, 792 and 4443.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Protocol

from pytest_bpf.errors import StimulusError
from pytest_bpf.stimuli.sent import within

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
"""IP protocol numbers."""

FIN, SYN, RST, PSH, ACK, URG = (1 << bit for bit in range(6))
"""TCP flags."""

IPv4 = IPv4Address | IPv4Interface
IPv6 = IPv6Address | IPv6Interface


class Addressed(Protocol):
    """What has the addresses of a frame's side: a place's `Interface`, or a `Host`."""

    @property
    def mac(self) -> str:
        """Hardware address, as in ``"02:00:00:00:00:01"``."""

    @property
    def ipv4(self) -> IPv4 | None:
        """IPv4 address."""

    @property
    def ipv6(self) -> IPv6 | None:
        """IPv6 address."""


@dataclass(frozen=True)
class Host:
    """One side of a frame that belongs to no real interface."""

    mac: str
    ipv4: IPv4 | None = None
    ipv6: IPv6 | None = None


CLIENT = Host("02:00:00:00:00:01", IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
"""The default source: addresses reserved for documentation."""

SERVER = Host("02:00:00:00:00:02", IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2"))
"""The default destination."""


def udp_frame(
    src: Addressed = CLIENT,
    dst: Addressed = SERVER,
    *,
    sport: int = 40000,
    dport: int = 9,
    payload: bytes = b"",
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
    vlan: int | None = None,
) -> bytes:
    """Return an Ethernet frame with one UDP datagram (``dport`` 9 is the discard service)."""
    within("sport", sport, 0, 65535)
    within("dport", dport, 0, 65535)
    within("bytes of payload", len(payload), 0, 65527 if ipv6 else 65507)
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    return _frame(src, dst, UDP, datagram, 6, ipv6=ipv6, ttl=ttl, tos=tos, vlan=vlan)


def tcp_frame(
    src: Addressed = CLIENT,
    dst: Addressed = SERVER,
    *,
    sport: int = 40000,
    dport: int = 80,
    flags: int = SYN,
    seq: int = 0,
    ack: int = 0,
    window: int = 65535,
    payload: bytes = b"",
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
    vlan: int | None = None,
) -> bytes:
    """Return an Ethernet frame with one TCP segment, by default a SYN; no TCP options."""
    within("sport", sport, 0, 65535)
    within("dport", dport, 0, 65535)
    within("flags", flags, 0, 255)
    within("seq", seq, 0, 0xFFFFFFFF)
    within("ack", ack, 0, 0xFFFFFFFF)
    within("window", window, 0, 65535)
    header = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, window, 0, 0)
    return _frame(src, dst, TCP, header + payload, 16, ipv6=ipv6, ttl=ttl, tos=tos, vlan=vlan)


def icmp_frame(
    src: Addressed = CLIENT,
    dst: Addressed = SERVER,
    *,
    identifier: int = 1,
    sequence: int = 1,
    payload: bytes = b"",
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
    vlan: int | None = None,
) -> bytes:
    """Return an Ethernet frame with one ICMP or ICMPv6 echo request."""
    within("identifier", identifier, 0, 65535)
    within("sequence", sequence, 0, 65535)
    protocol, kind = (ICMPV6, 128) if ipv6 else (ICMP, 8)
    message = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence) + payload
    return _frame(src, dst, protocol, message, 2, ipv6=ipv6, ttl=ttl, tos=tos, vlan=vlan)


def checksum(data: bytes) -> int:
    """Return the Internet checksum of ``data`` (RFC 1071)."""
    number = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    return -number % 0xFFFF  # the ones' complement sum of 16-bit words is the rest by 65535


def _frame(
    src: Addressed,
    dst: Addressed,
    protocol: int,
    segment: bytes,
    checksum_at: int,
    *,
    ipv6: bool,
    ttl: int,
    tos: int,
    vlan: int | None,
) -> bytes:
    """Put ``segment`` into IP and Ethernet, its checksum at ``checksum_at`` filled in."""
    within("ttl", ttl, 0, 255)
    within("tos", tos, 0, 255)
    source, destination = (_packed(side, ipv6=ipv6) for side in (src, dst))
    within("bytes behind the IP header", len(segment), 0, 65535 if ipv6 else 65515)
    pseudo = struct.pack("!II" if ipv6 else "!HH", *_pseudo(len(segment), protocol, ipv6=ipv6))
    covered = segment if protocol == ICMP else source + destination + pseudo + segment
    total = checksum(covered) or (0xFFFF if protocol == UDP else 0)  # UDP's 0 means none
    segment = segment[:checksum_at] + struct.pack("!H", total) + segment[checksum_at + 2 :]
    if ipv6:
        ethertype = 0x86DD
        header = struct.pack("!IHBB", 6 << 28 | tos << 20, len(segment), protocol, ttl)
        header += source + destination
    else:
        ethertype = 0x0800
        words = (0x45, tos, 20 + len(segment), 0, 0, ttl, protocol)
        before = struct.pack("!BBHHHBB", *words)
        header = struct.pack("!H", checksum(before + source + destination))
        header = before + header + source + destination
    tag = b""
    if vlan is not None:
        within("vlan", vlan, 0, 4095)
        tag = struct.pack("!HH", 0x8100, vlan)
    ethernet = _mac(dst.mac) + _mac(src.mac) + tag + struct.pack("!H", ethertype)
    return ethernet + header + segment


def _pseudo(length: int, protocol: int, *, ipv6: bool) -> tuple[int, int]:
    """Return the end of the pseudo-header: length and protocol, in the order of each version."""
    return (length, protocol) if ipv6 else (protocol, length)


def _packed(side: Addressed, *, ipv6: bool) -> bytes:
    address = side.ipv6 if ipv6 else side.ipv4
    if address is None:
        raise StimulusError(f"{side.mac} has no IPv{6 if ipv6 else 4} address to put in a frame")
    return address.packed


def _mac(text: str) -> bytes:
    try:
        packed = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        packed = b""
    if len(packed) != 6:
        raise StimulusError(f"{text!r} is not a hardware address such as '02:00:00:00:00:01'")
    return packed

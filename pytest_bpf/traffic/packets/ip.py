"""UDP, TCP and ICMP echo over IPv4 and IPv6: RFC 791, 8200, 768, 9293, 792 and 4443."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pytest_bpf.errors.arguments import checked
from pytest_bpf.kernel.layers.transport import TcpFlags
from pytest_bpf.kernel.layers.values import checksum
from pytest_bpf.traffic.packets.sides import CLIENT, SERVER, addresses, packed, packed_mac
from pytest_bpf.traffic.result import check_range, to_bytes

if TYPE_CHECKING:
    from pytest_bpf.traffic.packets.sides import Addresses, Side

Vlan = int | tuple[int, ...] | None
"""The number of a VLAN, or those of several tags, the outer one first; None for no tag."""

ICMP, TCP, UDP, GRE, ICMPV6 = 1, 6, 17, 47, 58
"""IP protocol numbers."""

C_TAG, S_TAG = 0x8100, 0x88A8
"""Types of the last VLAN tag (802.1Q), and of those before it (802.1ad)."""

FIN, SYN, RST, PSH, ACK, URG = list(TcpFlags)[:6]
"""TCP flags."""


@checked
def udp_frame(
    src: Side = CLIENT,
    dst: Side = SERVER,
    *,
    sport: int = 40000,
    dport: int = 9,
    payload: bytes = b"",
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
    vlan: Vlan = None,
) -> bytes:
    """Return an Ethernet frame with one UDP datagram (``dport`` 9 is the discard service)."""
    check_range("sport", sport, 0, 65535)
    check_range("dport", dport, 0, 65535)
    payload = to_bytes("the payload", payload)
    check_range("bytes of payload", len(payload), 0, 65527 if ipv6 else 65507)
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    return ip_frame(src, dst, UDP, datagram, 6, ipv6=ipv6, ttl=ttl, tos=tos, vlan=vlan)


@checked
def tcp_frame(
    src: Side = CLIENT,
    dst: Side = SERVER,
    *,
    sport: int = 40000,
    dport: int = 80,
    flags: int = SYN,
    seq: int = 0,
    ack: int = 0,
    window: int = 65535,
    options: bytes = b"",
    payload: bytes = b"",
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
    vlan: Vlan = None,
) -> bytes:
    """Return an Ethernet frame with one TCP segment, by default a SYN.

    ``options`` are bytes as on the wire, filled up to whole words.
    """
    check_range("sport", sport, 0, 65535)
    check_range("dport", dport, 0, 65535)
    check_range("flags", flags, 0, 255)
    check_range("seq", seq, 0, 0xFFFFFFFF)
    check_range("ack", ack, 0, 0xFFFFFFFF)
    check_range("window", window, 0, 65535)
    payload = to_bytes("the payload", payload)
    options += b"\0" * (-len(options) % 4)
    check_range("bytes of options", len(options), 0, 40)
    size = (20 + len(options)) // 4 << 4
    header = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, size, flags, window, 0, 0) + options
    return ip_frame(src, dst, TCP, header + payload, 16, ipv6=ipv6, ttl=ttl, tos=tos, vlan=vlan)


@checked
def icmp_frame(
    src: Side = CLIENT,
    dst: Side = SERVER,
    *,
    identifier: int = 1,
    sequence: int = 1,
    payload: bytes = b"",
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
    vlan: Vlan = None,
) -> bytes:
    """Return an Ethernet frame with one ICMP or ICMPv6 echo request."""
    check_range("identifier", identifier, 0, 65535)
    check_range("sequence", sequence, 0, 65535)
    payload = to_bytes("the payload", payload)
    protocol, kind = (ICMPV6, 128) if ipv6 else (ICMP, 8)
    message = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence) + payload
    return ip_frame(src, dst, protocol, message, 2, ipv6=ipv6, ttl=ttl, tos=tos, vlan=vlan)


@checked
def ip_frame(
    src: Side,
    dst: Side,
    protocol: int,
    segment: bytes,
    checksum_at: int | None,
    *,
    ipv6: bool,
    ttl: int,
    tos: int,
    vlan: Vlan,
) -> bytes:
    """Put ``segment`` into IP and Ethernet, its checksum at ``checksum_at`` filled in.

    With ``checksum_at`` None there is none to fill in.
    """
    check_range("ttl", ttl, 0, 255)
    check_range("tos", tos, 0, 255)
    src, dst = addresses(src), addresses(dst)
    source, destination = (packed(side, ipv6=ipv6) for side in (src, dst))
    check_range("bytes behind the IP header", len(segment), 0, 65535 if ipv6 else 65515)
    if checksum_at is not None:
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
    return ethernet(src, dst, ethertype, vlan) + header + segment


def ethernet(src: Addresses, dst: Addresses, ethertype: int, vlan: Vlan = None) -> bytes:
    """Return an Ethernet header with its VLAN tags."""
    numbers = () if vlan is None else vlan if isinstance(vlan, tuple) else (vlan,)
    tags = b""
    for at, number in enumerate(numbers):
        check_range("vlan", number, 0, 4095)
        kind = C_TAG if at == len(numbers) - 1 else S_TAG
        tags += struct.pack("!HH", kind, number)
    return packed_mac(dst.mac) + packed_mac(src.mac) + tags + struct.pack("!H", ethertype)


def _pseudo(length: int, protocol: int, *, ipv6: bool) -> tuple[int, int]:
    """Return the end of the pseudo-header: length and protocol, in the order of each version."""
    return (length, protocol) if ipv6 else (protocol, length)

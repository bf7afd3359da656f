"""UDP, and TCP with its options: RFC 768, 9293, 7323, 2018, 7413."""

from __future__ import annotations

from enum import IntFlag
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.kernel.layers.values import Form, Option, number, options, words

if TYPE_CHECKING:
    from pytest_bpf.kernel.layers.link import Bounds

VXLAN_PORTS = {4789, 8472}
"""IANA's port, and that of Linux before it."""

GENEVE_PORT = 6081

TCP_OPTIONS: dict[int, Form] = {
    0: ("end", None),
    1: ("nop", None),
    2: ("mss", number),
    3: ("window_scale", number),
    4: ("sack_permitted", None),
    5: ("sack", words),
    8: ("timestamps", words),
    34: ("fast_open", None),
}

_UDP = Struct("!HHHH")
_TCP = Struct("!HHIIBBHHH")


class TcpFlags(IntFlag):
    """The flags of TCP."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32
    ECE = 64
    CWR = 128
    AE = 256


class Udp(NamedTuple):
    """The UDP header. ``checksum`` 0 means that there is none."""

    sport: int
    dport: int
    length: int
    checksum: int


class Tcp(NamedTuple):
    """The TCP header; ``header_length`` is in bytes."""

    sport: int
    dport: int
    seq: int
    ack: int
    header_length: int
    reserved: int
    flags: TcpFlags
    window: int
    checksum: int
    urgent: int
    options: tuple[Option, ...]


def udp_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where a UDP header and its datagram end, and what follows."""
    _, port, size, _ = _UDP.unpack_from(data, at)
    stop = at + size if 8 <= size <= end - at else end
    return at + 8, stop, "vxlan" if port in VXLAN_PORTS else "geneve" * (port == GENEVE_PORT)


def udp(data: bytes, at: int, _end: int) -> Udp:
    """Read a UDP header."""
    return Udp(*_UDP.unpack_from(data, at))


def tcp_bounds(data: bytes, at: int, end: int) -> Bounds:
    """Say where a TCP header ends; what follows is the stream."""
    return at + max((data[at + 12] >> 4) * 4, 20), end, ""


def tcp(data: bytes, at: int, end: int) -> Tcp:
    """Read a TCP header."""
    sport, dport, seq, ack, size, flags, window, checksum, urgent = _TCP.unpack_from(data, at)
    length = (size >> 4) * 4
    area = data[at + 20 : end]
    return Tcp(
        sport,
        dport,
        seq,
        ack,
        length,
        size >> 1 & 7,
        TcpFlags(flags | (size & 1) << 8),
        window,
        checksum,
        urgent,
        options(area, TCP_OPTIONS) if area else (),
    )

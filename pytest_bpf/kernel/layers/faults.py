"""What is wrong with a packet: what is cut off, lengths that do not fit, wrong checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.kernel.layers.values import checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.kernel.layers.packet import Packet
    from pytest_bpf.kernel.layers.table import Walk

CHECKSUMS = {"udp": (6, 17), "tcp": (16, 6), "icmp": (2, 1), "icmpv6": (2, 58)}
"""Where the checksum of a layer stands in it, and its number as a protocol."""


def faults(packet: Packet, walk: Walk) -> Iterator[str]:
    """Yield one sentence for each fault, those of packets within this one too."""
    addresses, whole = b"", True
    for name, at, end in zip(walk.names, walk.edges, walk.edges[1:], strict=False):
        if name == "ip":
            yield from _ip(packet.data, at, end)
            addresses, whole = packet.data[at + 12 : at + 20], _whole(packet.data, at)
        elif name == "ipv6":
            addresses, whole = packet.data[at + 8 : at + 40], True
            size = int.from_bytes(packet.data[at + 4 : at + 6], "big")
            if size > len(packet.data) - at - 40:
                yield f"ipv6.length is {size}, but {len(packet.data) - at - 40} bytes follow"
                whole = False
        elif name == "fragment":
            whole = packet.data[at + 2 : at + 4] in {b"\0\0", b"\0\6"}
        elif name in CHECKSUMS and whole:
            yield from _transport(packet.data[at : walk.end], name, addresses)
    if walk.cut:
        yield str(walk.cut)
    if walk.inner and not walk.inner.endswith("?"):
        yield from (f"inner {fault}" for fault in packet.inner.faults)


def _ip(data: bytes, at: int, end: int) -> Iterator[str]:
    if data[at] >> 4 != 4:
        yield f"ip.version is {data[at] >> 4}, not 4"
    if data[at] & 15 < 5:
        yield f"ip.header_length is {(data[at] & 15) * 4}, but a header has at least 20 bytes"
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    if not end - at <= length <= len(data) - at:
        yield f"ip.length is {length}, but {len(data) - at} bytes are there"
    stated = int.from_bytes(data[at + 10 : at + 12], "big")
    right = checksum(data[at : at + 10] + data[at + 12 : end])
    if stated % 0xFFFF != right:
        yield f"ip.checksum is {stated:#06x}; that of this header is {right:#06x}"


def _whole(data: bytes, at: int) -> bool:
    """Say whether an IPv4 packet is no fragment, and all of it is there."""
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    return not int.from_bytes(data[at + 6 : at + 8], "big") & 0x3FFF and length <= len(data) - at


def _transport(segment: bytes, name: str, addresses: bytes) -> Iterator[str]:
    at, protocol = CHECKSUMS[name]
    stated = int.from_bytes(segment[at : at + 2], "big")
    if name == "udp":
        length = int.from_bytes(segment[4:6], "big")
        if length != len(segment):
            yield f"udp.length is {length}, but {len(segment)} bytes are there"
            return
        if not stated:
            return
    pseudo = b""
    if name != "icmp" and addresses:
        pseudo = addresses + len(segment).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    right = checksum(pseudo + segment[:at] + segment[at + 2 :])
    if stated % 0xFFFF != right:
        yield f"{name}.checksum is {stated:#06x}; that of this packet is {right:#06x}"

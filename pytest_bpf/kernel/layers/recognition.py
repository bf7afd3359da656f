"""Whether bytes are a packet: what nobody has said to be one is taken for one with good reason."""

from __future__ import annotations

from pytest_bpf.kernel.layers.link import ETHERTYPES
from pytest_bpf.kernel.layers.values import checksum

VERSIONS = {"ip": 4, "ipv6": 6}


def first_layer(data: bytes) -> str | None:
    """Return the layer that a packet begins with, or None where the bytes look like no packet.

    A frame has a known Ethernet type and the right version behind it; a packet without Ethernet
    is IPv4 with the right checksum, or IPv6 of the right length.
    """
    kind = _behind_tags(data)
    if kind is not None:
        name, at = kind
        version = VERSIONS.get(name)
        if version is None or at >= len(data) or data[at] >> 4 == version:
            return "eth"
    if data[:14] == bytes(14) and first_layer(data[14:]) in VERSIONS:
        return "eth"  # as a test run gives it back
    if len(data) >= 20 and data[0] >> 4 == 4:
        size = (data[0] & 15) * 4
        if size >= 20 and len(data) >= size and checksum(data[:size]) == 0:
            return "ip"
    if len(data) >= 40 and data[0] >> 4 == 6 and (data[4] << 8 | data[5]) == len(data) - 40:
        return "ipv6"
    return None


def _behind_tags(data: bytes) -> tuple[str, int] | None:
    """Return the layer behind Ethernet and its VLAN tags, and where it begins."""
    at = 12
    while at + 2 <= len(data):
        name = ETHERTYPES.get(data[at] << 8 | data[at + 1])
        if name != "vlan":
            return (name, at + 2) if name else None
        at += 4
    return None

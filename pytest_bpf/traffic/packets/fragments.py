"""A packet in several frames: RFC 791 and 8200."""

from __future__ import annotations

import struct
from typing import Any

from pytest_bpf.errors import StimulusError
from pytest_bpf.kernel.layers.table import walk
from pytest_bpf.kernel.layers.values import checksum
from pytest_bpf.traffic.result import check_range, to_bytes

FRAGMENT = 44
"""The number of IPv6's fragment header."""

MORE_FRAGMENTS = {4: 0x2000, 6: 1}


def fragments(frame: Any, mtu: int, *, id: int = 1) -> list[bytes]:  # noqa: A002 - the header's name
    """Return the packet of an Ethernet frame as fragments of at most ``mtu`` bytes, from IP on.

    Raises `StimulusError` for a frame without IP, a fragment, and an ``mtu`` without room.
    """
    data = to_bytes("the frame", frame)
    steps = walk(data, "eth")
    network = next((name for name in ("ip", "ipv6") if name in steps.names), None)
    if network is None or "fragment" in steps.names:
        raise StimulusError(
            f"a frame with the layers {', '.join(steps.names) or 'none'} has no fragments; "
            "it must be IPv4 or IPv6, and whole"
        )
    at = steps.names.index(network)
    begin, head_end = steps.edges[at], steps.edges[at + 1]
    version = 4 if network == "ip" else 6
    head = head_end - begin + (0 if version == 4 else 8)
    check_range("the mtu of fragments", mtu, head + 8)
    check_range("the id of fragments", id, 0, 0xFFFF if version == 4 else 0xFFFFFFFF)
    end = begin + _length(data[begin:head_end], version)
    body, room = data[head_end:end], (mtu - head) // 8 * 8
    result = []
    for offset in range(0, max(len(body), 1), room):
        part = body[offset : offset + room]
        more = MORE_FRAGMENTS[version] if offset + room < len(body) else 0
        make = _fragment_4 if version == 4 else _fragment_6
        result.append(data[:begin] + make(data[begin:head_end], part, offset, more, id))
    return result


def _length(head: bytes, version: int) -> int:
    return (
        int.from_bytes(head[2:4], "big") if version == 4 else 40 + int.from_bytes(head[4:6], "big")
    )


def _fragment_4(head: bytes, part: bytes, offset: int, more: int, number: int) -> bytes:
    length = struct.pack("!HHH", len(head) + len(part), number, offset // 8 | more)
    head = head[:2] + length + head[8:10] + b"\0\0" + head[12:]
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + part


def _fragment_6(head: bytes, part: bytes, offset: int, more: int, number: int) -> bytes:
    own = struct.pack("!BBHI", head[6], 0, offset | more, number)
    length = struct.pack("!HB", len(own) + len(part), FRAGMENT)
    return head[:4] + length + head[7:] + own + part

"""The pcapng format (draft-ietf-opsawg-pcapng), which Wireshark reads and writes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pytest_bpf.traffic.capture.frames import CapturedFrame

SECTION, INTERFACE, SIMPLE_PACKET, STATISTICS, ENHANCED_PACKET = 0x0A0D0D0A, 1, 3, 5, 6
MAGIC = b"\n\r\r\n"
"""Kinds of blocks, and the first bytes of a file."""

ETHERNET, RAW = 1, 101
"""``LINKTYPE_ETHERNET``, and ``LINKTYPE_RAW`` for packets that begin with IP."""

COMMENT, APPLICATION, IF_NAME, IF_TSRESOL, EPB_FLAGS, DROPPED = 1, 4, 2, 9, 2, 5
NANOSECONDS = b"\x09"
INBOUND, OUTBOUND = 1, 2


def read(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the Ethernet frames of a file's ``content``: data, nanoseconds since 1970, length.

    Raises `ValueError`, whose message is the end of a sentence about the file.
    """
    order, number, at = "=", 0, 0
    interfaces: list[tuple[int, float]] = []
    while at < len(content):
        if content[at : at + 4] == MAGIC:
            order = ">" if content[at + 8 : at + 12] == b"\x1a\x2b\x3c\x4d" else "<"
            interfaces = []
        if at + 12 > len(content):
            raise ValueError(f"is cut off behind frame {number}")
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if size < 12 or size % 4 or at + size > len(content):
            raise ValueError(f"is cut off or damaged behind frame {number}")
        body, at = content[at + 8 : at + size - 4], at + size
        if kind == INTERFACE:
            interfaces.append(_interface(body, order))
        elif kind in {ENHANCED_PACKET, SIMPLE_PACKET}:
            number += 1
            try:
                yield _frame(kind, body, order, interfaces)
            except (struct.error, IndexError):
                raise ValueError(f"is damaged in frame {number}") from None


def _interface(body: bytes, order: str) -> tuple[int, float]:
    """Return the link type of an interface, and the nanoseconds of its unit of time."""
    link_type = struct.unpack_from(f"{order}H", body)[0]
    unit, at = 1000.0, 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(f"{order}HH", body, at)
        if code == IF_TSRESOL and size:
            power = body[at + 4]
            unit = 1e9 / (2.0 ** (power & 127) if power & 128 else 10.0**power)
        at += 4 + size + -size % 4
    return link_type, unit


def _frame(
    kind: int, body: bytes, order: str, interfaces: list[tuple[int, float]]
) -> tuple[bytes, int, int]:
    if kind == SIMPLE_PACKET:
        number, units, at = 0, 0, 4
        length = struct.unpack_from(f"{order}I", body)[0]
        size = min(length, len(body) - at)
    else:
        number, high, low, size, length = struct.unpack_from(f"{order}5I", body)
        units, at = high << 32 | low, 20
    link_type, unit = interfaces[number]
    if link_type != ETHERNET:
        raise ValueError(f"has frames of link type {link_type}, not Ethernet ({ETHERNET})")
    if at + size > len(body):
        raise IndexError
    return body[at : at + size], units if unit == 1 else int(units * unit), length


def write(path: Path, frames: Iterable[CapturedFrame], ifname: str, lost: int = 0) -> None:
    """Write frames of one interface; a dropped one has the reason as its comment.

    ``lost`` is the number of those that are missing, which Wireshark shows too.
    """
    frames = list(frames)
    raw = bool(frames) and frames[0].first != "eth"
    with path.open("wb") as file:
        application = _option(APPLICATION, b"pytest-bpf")
        file.write(_block(SECTION, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1) + application))
        options = _option(IF_NAME, ifname.encode()) + _option(IF_TSRESOL, NANOSECONDS)
        link = struct.pack("=HHI", RAW if raw else ETHERNET, 0, 0)
        file.write(_block(INTERFACE, link + options))
        for frame in frames:
            file.write(_packet(frame))
        last = frames[-1].time_ns if frames else 0
        time = struct.pack("=III", 0, last >> 32, last & 0xFFFFFFFF)
        file.write(_block(STATISTICS, time + _option(DROPPED, struct.pack("=Q", lost))))


def _packet(frame: CapturedFrame) -> bytes:
    time, size = frame.time_ns, len(frame.data)
    head = struct.pack("=IIIII", 0, time >> 32, time & 0xFFFFFFFF, size, frame.length)
    options = b""
    if frame.drop:
        options = _option(COMMENT, f"dropped: {frame.drop} in {frame.function}".encode())
    flags = struct.pack("=I", OUTBOUND if frame.outgoing else INBOUND)
    options += _option(EPB_FLAGS, flags)
    return _block(ENHANCED_PACKET, head + _padded(frame.data) + options)


def _block(kind: int, body: bytes) -> bytes:
    """Return a block; its options end with one that says so."""
    body += struct.pack("=HH", 0, 0)
    size = len(body) + 12
    return struct.pack("=II", kind, size) + body + struct.pack("=I", size)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _padded(value: bytes) -> bytes:
    return value + b"\0" * (-len(value) % 4)

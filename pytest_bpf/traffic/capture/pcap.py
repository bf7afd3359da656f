"""Recordings: the classic format of libpcap, and pcapng."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.traffic.capture import pcapng

if TYPE_CHECKING:
    from pathlib import Path

SWAPPED = ">" if struct.pack("=H", 1) == struct.pack("<H", 1) else "<"
FORMATS = {
    0xA1B2C3D4: ("=", 1000),
    0xA1B23C4D: ("=", 1),
    0xD4C3B2A1: (SWAPPED, 1000),
    0x4D3CB2A1: (SWAPPED, 1),
}
"""By the magic number, as this machine reads it: the byte order of the rest, and the nanoseconds
of a unit of time."""

ETHERNET = 1
"""``LINKTYPE_ETHERNET``."""


@dataclass(frozen=True)
class Recorded:
    """A frame of a recording: its bytes, when it passed, and its ``length``: less may be there."""

    data: bytes
    time_ns: int
    length: int


def read(path: Path) -> list[bytes]:
    """Return the Ethernet frames of a pcap or pcapng file, in order; see `read_recording`."""
    return [frame.data for frame in read_recording(path)]


def read_recording(path: Path) -> list[Recorded]:
    """Return the Ethernet frames of a pcap or pcapng file with their times, in order.

    Raises `OSError` when it cannot be read, `ValueError` when it is none, is cut off, or has
    frames of another kind.
    """
    content = path.read_bytes()
    try:
        if content[:4] == pcapng.MAGIC:
            frames = [Recorded(*frame) for frame in pcapng.read(content)]
        else:
            frames = _read_classic(content)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    return frames


def _read_classic(content: bytes) -> list[Recorded]:
    if len(content) < 24 or (magic := struct.unpack_from("=I", content)[0]) not in FORMATS:
        raise ValueError("is no pcap file, and no pcapng file")
    order, unit = FORMATS[magic]
    link_type = struct.unpack_from(f"{order}I", content, 20)[0] & 0xFFFF
    if link_type != ETHERNET:
        raise ValueError(f"has frames of link type {link_type}, not Ethernet ({ETHERNET})")
    frames: list[Recorded] = []
    at = 24
    while at < len(content):
        if at + 16 > len(content):
            raise ValueError(f"is cut off in frame {len(frames) + 1}")
        seconds, parts, size, length = struct.unpack_from(f"{order}4I", content, at)
        if at + 16 + size > len(content):
            raise ValueError(f"is cut off in frame {len(frames) + 1}")
        data = content[at + 16 : at + 16 + size]
        frames.append(Recorded(data, seconds * 1_000_000_000 + parts * unit, length))
        at += 16 + size
    return frames

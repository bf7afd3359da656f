"""Blocks of a ring as columns: ``struct tpacket3_hdr`` and ``sockaddr_ll`` of each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PACKETS, FIRST = 12, 16
"""Where a block says how many frames it has, and where the first one begins."""

HEADER = np.dtype(
    {
        "names": ["next", "sec", "nsec", "snaplen", "len", "status", "mac", "tci", "tpid", "type"],
        "formats": ["u4", "u4", "u4", "u4", "u4", "u4", "u2", "u4", "u2", "u1"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 32, 36, 58],
        "itemsize": 68,
    }
)
OUTGOING = 4
CHECKSUM_NOT_READY, VLAN_VALID, VLAN_TYPE_VALID = 1 << 3, 1 << 4, 1 << 6
SHORTEST_RUN = 16
"""Frames of one size that are worth a look at all of them at once."""


@dataclass(frozen=True)
class Columns:
    """The frames of a block: where each begins in ``data``, and its header."""

    data: bytes
    begins: Any
    headers: Any

    @property
    def times(self) -> Any:
        """Nanoseconds since 1970."""
        return self.headers["sec"].astype(np.int64) * 1_000_000_000 + self.headers["nsec"]

    def raw(self) -> Iterator[bytes]:
        """Yield the bytes of each frame; a VLAN tag that the kernel took off is put back."""
        begins = (self.begins + self.headers["mac"]).tolist()
        ends = (self.begins + self.headers["mac"] + self.headers["snaplen"]).tolist()
        data, tagged = self.data, self.headers["status"] & VLAN_VALID
        if not tagged.any():
            yield from (data[at:end] for at, end in zip(begins, ends, strict=True))
            return
        for number, (at, end) in enumerate(zip(begins, ends, strict=True)):
            frame = data[at:end]
            yield _tag(frame, self.headers[number]) if tagged[number] else frame


def columns(block: bytes) -> Columns:
    """Return the columns of a block."""
    count, first = (int.from_bytes(block[at : at + 4], "little") for at in (PACKETS, FIRST))
    begins = offsets(block, count, first)
    content = np.frombuffer(block, np.uint8)
    rows = (
        content[begins[:, None] + np.arange(HEADER.itemsize)] if count else np.empty((0, 68), "u1")
    )
    return Columns(block, begins, np.ascontiguousarray(rows).view(HEADER).reshape(-1))


def offsets(block: bytes, count: int, first: int) -> Any:
    """Return where the frames of a block begin: each says how far the next one is.

    Frames of one size come in runs, which are found at once.
    """
    words = np.frombuffer(block, np.uint32, count=len(block) // 4)
    result = np.empty(count, np.int64)
    number, at = 0, first
    while number < count:
        step = int(words[at // 4])
        result[number] = at
        run = 1
        if step and number + SHORTEST_RUN < count:
            most = min(count - number, (len(block) - at) // step)
            steps = words[at // 4 : (at + step * most) // 4 : step // 4][:most]
            other = np.flatnonzero(steps != step)
            run = max(int(other[0]) if len(other) else len(steps), 1)
            result[number : number + run] = at + step * np.arange(run)
        if run < SHORTEST_RUN:
            at += step * (run - 1)
            for extra in range(run, min(SHORTEST_RUN, count - number)):
                at += int(words[at // 4])
                result[number + extra] = at
                run = extra + 1
            at += int(words[at // 4])
        else:
            at += step * run
        number += run
    return result


def directions(headers: Any) -> Sequence[bool]:
    """Say of each frame whether it left the interface."""
    listed: Sequence[bool] = (headers["type"] == OUTGOING).tolist()
    return listed


def _tag(frame: bytes, header: Any) -> bytes:
    kind = int(header["tpid"]) if header["status"] & VLAN_TYPE_VALID else 0x8100
    tag = kind.to_bytes(2, "big") + (int(header["tci"]) & 0xFFFF).to_bytes(2, "big")
    return frame[:12] + tag + frame[12:]

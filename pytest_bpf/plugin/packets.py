"""Failed comparisons of packets, and of bytes that are packets: the fields that differ."""

from __future__ import annotations

import sys
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SAME = "their bytes are the same: compare Packet(...), which equals bytes and scapy's packets"

MOST = 1_000_000
"""Pairs of packets among which equal ones are looked for."""


def explain(left: Any, right: Any) -> list[str] | None:
    """Return a headline and the fields that differ, or None where no packets are compared.

    Packets are `Packet`, scapy's packets and bytes that look like frames; lists of them are
    compared one by one.
    """
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return _lists(left, right)
    one, two = _pair(left, right)
    if one is None or two is None:
        return None
    return [f"{one!r} == {two!r}", *(f"  {line}" for line in one.differences(two) or [SAME])]


def _lists(left: Any, right: Any) -> list[str] | None:
    firsts = [side[0] for side in (left, right) if side]
    if not firsts or None in _pair(firsts[0], firsts[-1]):
        return None
    lines = []
    for at, mine, yours in _aligned(left, right):
        if mine is None or yours is None:
            side, value = ("right", yours) if mine is None else ("left", mine)
            lines.append(f"  [{at}]: only on the {side}: {_packet(value) or value!r}")
            continue
        one, two = _pair(mine, yours)
        if one is not None and two is not None:
            lines += [f"  [{at}].{line}" for line in one.differences(two)]
        elif mine != yours:
            lines.append(f"  [{at}]: {mine!r:.100}, not {yours!r:.100}")
    return [f"{len(left)} packets == {len(right)} packets", *(lines or [f"  {SAME}"])]


def _aligned(left: Any, right: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield what is to be compared, with its position; None is what one side lacks.

    Where one list is longer, equal packets are put beside each other. The position is that of the
    side which has the packet, the left one's where both have.
    """
    if len(left) == len(right) or len(left) * len(right) > MOST:
        yield from ((at, *both) for at, both in enumerate(zip_longest(left, right)))
        return
    one, two = ([_packet(each) or repr(each) for each in side] for side in (left, right))
    for _, a, b, c, d in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        for n, (mine, yours) in enumerate(zip_longest(left[a:b], right[c:d])):
            yield (c if mine is None else a) + n, mine, yours


def _pair(left: Any, right: Any) -> tuple[Any, Any]:
    """Return both as packets where one is a packet, or both look like one."""
    one, two = _packet(left), _packet(right)
    if one is not None and two is None:
        return one, _as(one, right)
    if two is not None and one is None:
        return _as(two, left), two
    return one, two


def _as(packet: Any, value: Any) -> Any:
    """Return bytes as the packet that the other side is."""
    from pytest_bpf.kernel.layers.packet import Packet

    if isinstance(value, (bytes, bytearray, memoryview)):
        return Packet(value, packet.first)
    return None


def _packet(value: Any) -> Any:
    """Return a value as a `Packet`, or None where it is none and does not look like one."""
    from pytest_bpf.kernel.layers.packet import Packet
    from pytest_bpf.kernel.layers.recognition import first_layer

    if isinstance(value, Packet):
        return value
    if "pytest_bpf.traffic.capture.frames" in sys.modules:
        from pytest_bpf.traffic.capture.frames import CapturedFrame

        if isinstance(value, CapturedFrame):
            return value.packet
    if "scapy.packet" in sys.modules and isinstance(value, sys.modules["scapy.packet"].Packet):
        value = bytes(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        first = first_layer(data)
        return Packet(data, first) if first else None
    return None

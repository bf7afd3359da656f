"""What the calls of `Traffic` take, checked."""

from __future__ import annotations

from typing import Any

from pytest_bpf.kernel.layers.buffers import is_packet
from pytest_bpf.traffic.result import check_place, check_range, to_bytes

LARGEST_DATAGRAM = {False: 65507, True: 65527}
"""Bytes of payload in one UDP datagram or ICMP echo, by ``ipv6``."""


def payload_of(
    call: str, size: int, payload: bytes | None, largest: int | None, low: int = 0
) -> bytes:
    """Return the payload of one message: the one that was given, or ``size`` zero bytes."""
    if payload is not None:
        payload = to_bytes(f"{call}: payload", payload)
        check_range(f"{call}: bytes of the payload", len(payload), low, largest)
        return payload
    check_range(f"{call}: size", size, low, largest)
    return bytes(size)


def check_places(call: str, to: object, cgroup: object = None, to_cgroup: object = None) -> None:
    """Raise `StimulusError` for a namespace or a cgroup that is none."""
    check_place(call, "to", to, "iface", "a namespace, such as one of bpf_netns_pair")
    check_place(call, "cgroup", cgroup, "run", "a Cgroup")
    check_place(call, "to_cgroup", to_cgroup, "run", "a Cgroup")


def are_several(frames: Any) -> bool:
    """Say whether it is a list of frames, or of scapy's packets, and not one of them."""
    single = isinstance(frames, (str, bytes, bytearray, memoryview, dict)) or is_packet(frames)
    return not single and hasattr(frames, "__iter__")


def frame_of(frame: Any, count: int) -> bytes:
    """Return the bytes of a frame that can be sent ``count`` times."""
    data = to_bytes("the frame", frame)
    check_range("bytes of the frame", len(data), 14)
    check_range("count", count, 0, 2**31 - 1)
    return data

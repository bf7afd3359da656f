"""The bytes of what is given as a packet: bytes, or a packet of another library."""

from __future__ import annotations

from typing import Any

from pytest_bpf.errors import ValueTypeError


def is_packet(value: object) -> bool:
    """Say whether a value is somebody's packet: no bytes, but `bytes` of it are what it is."""
    return hasattr(value, "__bytes__") and not isinstance(value, (bytes, type))


def to_bytes(value: Any, noun: str) -> bytes:
    """Return the bytes of ``value``; raise `ValueTypeError` when it is no bytes and no packet."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)) or is_packet(value):
        return bytes(value)
    raise ValueTypeError(f"{noun} is {value!r:.60}; it must be bytes, or a packet such as scapy's")

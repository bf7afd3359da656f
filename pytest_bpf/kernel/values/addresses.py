"""IP and MAC addresses, given as text or by `ipaddress`, as the bytes that a packet has."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Any

from pytest_bpf.errors import ValueTypeError

SIZES = {4: "IPv4", 6: "MAC", 16: "IPv6"}
"""The kinds of addresses by their size in bytes."""

_MAC = re.compile(r"[0-9a-fA-F]{2}(?:(?::[0-9a-fA-F]{2}){5}|(?:-[0-9a-fA-F]{2}){5})")


def pack(value: Any) -> bytes | None:
    """Return an address in network order; None for what is no address.

    Raises `ValueTypeError` for an address with a prefix or a scope, which would be lost.
    """
    if isinstance(value, str):
        return _parse(str(value))
    if not isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return None
    if isinstance(value, (ipaddress.IPv4Interface, ipaddress.IPv6Interface)):
        raise ValueTypeError(f"the address {value} has a prefix, which cannot be written: use .ip")
    if getattr(value, "scope_id", None):
        raise ValueTypeError(f"the address {value} has a scope, which cannot be written")
    return value.packed


@lru_cache(maxsize=1024)
def _parse(text: str) -> bytes | None:
    if _MAC.fullmatch(text):
        return bytes.fromhex(text.replace(":", "").replace("-", ""))
    try:
        return pack(ipaddress.ip_address(text))
    except ValueError:
        return None


class _Prefix:
    """The part of a network that compares with text and with addresses."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
            try:
                other = ipaddress.ip_network(other)
            except ValueError:
                return False
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return super().__hash__()

    def __repr__(self) -> str:
        return f"{type(self).__mro__[2].__name__}({str(self)!r})"


class Prefix4(_Prefix, ipaddress.IPv4Network):
    """A key of an LPM trie; equal to its text and, when it is one address, to that."""


class Prefix6(_Prefix, ipaddress.IPv6Network):
    """A key of an LPM trie; equal to its text and, when it is one address, to that."""


def prefix(address: bytes, length: int) -> Prefix4 | Prefix6:
    """Return the network of ``length`` bits that an address of 4 or 16 bytes is in."""
    return (Prefix4 if len(address) == 4 else Prefix6)((address, length), strict=False)

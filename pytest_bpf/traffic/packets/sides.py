"""The two sides of a frame: the addresses of an interface, or of a host that is none."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any, Protocol, cast

from pytest_bpf.errors import StimulusError

IPv4 = IPv4Address | IPv4Interface
IPv6 = IPv6Address | IPv6Interface


class Addresses(Protocol):
    """What has the addresses of a frame's side: a place's `Interface`, or a `Host`."""

    @property
    def mac(self) -> str:
        """Hardware address, as in ``"02:00:00:00:00:01"``."""

    @property
    def ipv4(self) -> IPv4 | None:
        """IPv4 address."""

    @property
    def ipv6(self) -> IPv6 | None:
        """IPv6 address."""


class Place(Protocol):
    """A namespace, whose first interface has the addresses."""

    @property
    def iface(self) -> Addresses:
        """Its first interface."""


Side = Addresses | Place
"""What a frame comes from or goes to."""


@dataclass(frozen=True)
class Host:
    """One side of a frame that belongs to no real interface."""

    mac: str
    ipv4: IPv4 | None = None
    ipv6: IPv6 | None = None


CLIENT = Host("02:00:00:00:00:01", IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
"""The default source: addresses reserved for documentation."""

SERVER = Host("02:00:00:00:00:02", IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2"))
"""The default destination."""


def addresses(side: Side) -> Addresses:
    """Return a side's addresses, a namespace's of its first interface; raise `StimulusError`."""
    found: Any = getattr(side, "iface", side)
    if not all(hasattr(found, name) for name in ("mac", "ipv4", "ipv6")):
        raise StimulusError(
            f"a side of a frame is {side!r}; it must be a namespace, an interface of one, or a "
            "Host with mac, ipv4 and ipv6"
        )
    return cast("Addresses", found)


def packed(side: Addresses, *, ipv6: bool) -> bytes:
    """Return the bytes of a side's address; raise `StimulusError` where it has none."""
    address = side.ipv6 if ipv6 else side.ipv4
    if address is not None and not hasattr(address, "packed"):
        raise StimulusError(f"the address {address!r} must be of the module ipaddress")
    if address is None:
        raise StimulusError(f"{side.mac} has no IPv{6 if ipv6 else 4} address to put in a frame")
    return address.packed


def packed_mac(text: str) -> bytes:
    """Return the six bytes of a hardware address; raise `StimulusError` for what is none."""
    try:
        packed = bytes.fromhex(text.replace(":", ""))
    except (AttributeError, ValueError):
        packed = b""
    if len(packed) != 6:
        raise StimulusError(f"{text!r} is not a hardware address such as '02:00:00:00:00:01'")
    return packed

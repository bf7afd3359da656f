"""What traffic and workloads need of a place, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

P = ParamSpec("P")
T = TypeVar("T")


class Place(Protocol):
    """A place in which a function can run: a namespace, a cgroup."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` there; its exceptions come back as they are."""


class EndpointInterface(Protocol):
    """A network interface, as an endpoint shows it."""

    @property
    def name(self) -> str:
        """The interface's name, as in ``"eth0"``."""

    @property
    def ifindex(self) -> int:
        """Its number within its namespace."""

    @property
    def mac(self) -> str:
        """Its hardware address, as in ``"02:00:00:00:00:01"``."""

    @property
    def ipv4(self) -> IPv4Interface | None:
        """Its IPv4 address and network."""

    @property
    def ipv6(self) -> IPv6Interface | None:
        """Its IPv6 address and network."""


class Endpoint(Place, Protocol):
    """A network namespace, as traffic sees it."""

    @property
    def name(self) -> str:
        """The label used in messages."""

    @property
    def ipv4(self) -> IPv4Address:
        """The address others reach it at."""

    @property
    def ipv6(self) -> IPv6Address:
        """The address others reach it at."""

    @property
    def iface(self) -> EndpointInterface:
        """Its first interface besides ``lo``; raises when it has none."""

    @property
    def delay(self) -> float:
        """Seconds that the topology adds to what leaves it."""

    def socket(self, family: int, kind: int, proto: int, /) -> socket.socket:
        """Make a socket in it, usable from any thread."""

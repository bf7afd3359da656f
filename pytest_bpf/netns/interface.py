"""The interfaces of a network namespace, as values."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import UnknownNameError, near_matches

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from pytest_bpf.netns.namespace import Namespace
    from pytest_bpf.traffic.capture.capture import Capture
    from pytest_bpf.traffic.xsk.xdp_socket import XdpSocket


@dataclass(frozen=True)
class Interface:
    """A network interface, read once; ``mac`` is empty where there is none.

    As a number (in a map, a global variable, an argument) it is its index.
    """

    name: str
    ifindex: int
    mac: str
    namespace: Namespace = field(repr=False)
    ipv4: ipaddress.IPv4Interface | None = None
    ipv6: ipaddress.IPv6Interface | None = None

    def __index__(self) -> int:
        """Return its index in its namespace."""
        return self.ifindex

    def capture(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        direction: str = "both",
        drops: bool = False,
        ring: int = 16 << 20,
        most: int = 512 << 20,
    ) -> Capture:
        """Capture what it receives and sends from now on; see `pytest_bpf.Capture`.

        Use it as ``with iface.capture() as capture``. With ``path``, a pcapng file is written at
        the end. Raises `UnavailableError` where the kernel or the privilege for it is missing.
        """
        from pytest_bpf.traffic.capture.capture import Capture  # noqa: PLC0415 - by its first user

        capture = Capture(
            self.namespace, self, path, direction=direction, drops=drops, ring=ring, most=most
        )
        return self.namespace.keep(capture)

    def xdp_socket(self, queue: int = 0, *, mode: str = "auto") -> XdpSocket:
        """Return an AF_XDP socket on one of its queues; see `pytest_bpf.XdpSocket`.

        Close it, or use ``with``.
        """
        from pytest_bpf.traffic.xsk.xdp_socket import XdpSocket  # noqa: PLC0415 - by its first user

        return self.namespace.keep(XdpSocket(self.namespace, self, queue, mode))


def read_interfaces(namespace: Namespace) -> Mapping[str, Interface]:
    """Return the interfaces of the calling thread's network namespace, ``namespace``."""
    import psutil  # noqa: PLC0415 - 10 ms that not every session needs

    addresses = psutil.net_if_addrs()
    return MappingProxyType(
        _Interfaces(
            (
                (name, _interface(name, index, addresses.get(name, ()), namespace))
                for index, name in sorted(socket.if_nameindex())
                if name != "lo"
            ),
            namespace,
        )
    )


def read_loopback(namespace: Namespace) -> Interface:
    """Return ``lo`` of the calling thread's network namespace, ``namespace``."""
    import psutil  # noqa: PLC0415 - 10 ms that not every session needs

    addresses = psutil.net_if_addrs().get("lo", ())
    return _interface("lo", socket.if_nametoindex("lo"), addresses, namespace)


class _Interfaces(dict[str, Interface]):
    """Interfaces by name, ``lo`` only when asked for; a wrong name lists the near matches."""

    def __init__(self, interfaces: Iterable[tuple[str, Interface]], namespace: Namespace) -> None:
        super().__init__(interfaces)
        self._namespace = namespace

    def __missing__(self, name: str) -> Interface:
        if name == "lo":
            return self._namespace.lo
        raise UnknownNameError(f"there is no interface {name!r} here{near_matches(name, self)}")


def _interface(name: str, index: int, messages: Iterable[Any], namespace: Namespace) -> Interface:
    """Read psutil's addresses; a link-local IPv6 address is used when there is no other."""
    mac = next((a.address for a in messages if a.family == socket.AF_PACKET), "")
    ipv4 = [f"{a.address}/{a.netmask}" for a in messages if a.family == socket.AF_INET]
    ipv6 = sorted(
        (
            ipaddress.IPv6Interface(f"{a.address.partition('%')[0]}/{_length(a.netmask)}")
            for a in messages
            if a.family == socket.AF_INET6
        ),
        key=lambda address: address.is_link_local,
    )
    return Interface(
        name,
        index,
        mac,
        namespace,
        ipaddress.IPv4Interface(ipv4[0]) if ipv4 else None,
        ipv6[0] if ipv6 else None,
    )


def _length(mask: str) -> int:
    return int(ipaddress.IPv6Address(mask)).bit_count()

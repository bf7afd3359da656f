"""The layout of a topology as plain values: namespaces, cables, names and addresses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from pytest_bpf.errors import PlaceError

IFNAMSIZ = 16
SMALLEST_MTU, LARGEST_MTU = 68, 65535
SMALLEST_IPV6_MTU = 1280
MOST_QUEUES = 4096
KINDS = ("veth", "netkit")
FIRST_IFINDEX, LARGEST_IFINDEX = 2, 0x7FFFFFFF
"""The index after lo's, and the kernel's last one."""


@dataclass(frozen=True)
class End:
    """One end of a cable: an interface of a namespace, with addresses or as a bridge's port.

    ``ipv4`` and ``ipv6`` are written with their prefix lengths, as in ``"192.0.2.1/24"``.
    """

    namespace: str
    interface: str
    ipv4: str = ""
    ipv6: str = ""
    bridge: str = ""


@dataclass(frozen=True)
class Layout:
    """Namespaces and how they are joined.

    * ``cables``: a veth each, between two namespaces; with ``kind`` "netkit" (Linux 6.7) a netkit,
      whose primary end is the first.
    * ``bridges``: (namespace, name of the bridge).
    * ``gateways``: (namespace, address of its default gateway).
    * ``forwarding``: the namespaces that forward between their interfaces.
    * ``mtu`` in bytes (below 1280 there is no IPv6), ``queues``: of each veth, each way.
    * ``ifindex``: the index of the first interface; the others follow. At 100,000, say, a program
      shows whether it takes an index for a place in an array.
    * ``xdp``: native XDP works on the cables. Interfaces poll (GRO is on), so they take redirected
      and live frames, and those of ``XDP_TX`` with a native program of their own (it may just pass:
      without one a veth is not woken up for them). Senders fill in checksums themselves (TX
      checksum offload is off), so the frames that XDP moves are valid.
    * ``quiet``: the test's packets are the only ones. Neighbours and forwarding entries are
      permanent and there is no duplicate address detection, so no ARP, neighbour solicitation,
      router solicitation, multicast report or flooded frame disturbs a count. Without it the kernel
      resolves neighbours as usual.
    """

    cables: tuple[tuple[End, End], ...]
    bridges: tuple[tuple[str, str], ...] = ()
    gateways: tuple[tuple[str, str], ...] = ()
    forwarding: frozenset[str] = frozenset()
    mtu: int = 1500
    queues: int = 1
    quiet: bool = True
    xdp: bool = False
    kind: str = "veth"
    ifindex: int = FIRST_IFINDEX

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PlaceError(f"a cable is a {' or a '.join(KINDS)}, not {self.kind!r}")
        if self.xdp and self.kind != "veth":
            raise PlaceError(f"a {self.kind} runs no native XDP; use a veth, or leave xdp out")
        names: set[tuple[str, str]] = set()
        for namespace, interface in self.interfaces:
            check_name(interface)
            if interface == "lo" or (namespace, interface) in names:
                raise PlaceError(
                    f"the interface name {interface!r} is taken in namespace {namespace!r}; "
                    "choose another"
                )
            names.add((namespace, interface))
        for end in self.ends:
            _check_address(end.ipv4, 4)
            _check_address(end.ipv6, 6)
            if end.bridge and (end.namespace, end.bridge) not in self.bridges:
                raise PlaceError(f"there is no bridge {end.bridge!r} in {end.namespace!r}")
        _check_range("an mtu", self.mtu, SMALLEST_MTU, LARGEST_MTU)
        _check_range("the number of queues", self.queues, 1, MOST_QUEUES)
        most = LARGEST_IFINDEX - len(self.interfaces) + 1
        _check_range("the first ifindex", self.ifindex, FIRST_IFINDEX, most)

    @property
    def ends(self) -> tuple[End, ...]:
        """Both ends of each cable."""
        return tuple(end for cable in self.cables for end in cable)

    @property
    def interfaces(self) -> tuple[tuple[str, str], ...]:
        """(namespace, name) of every interface, in the order in which they get their indexes."""
        return (*self.bridges, *((end.namespace, end.interface) for end in self.ends))

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces, in the order of their mention in the cables, those with bridges last."""
        bridged = [name for name, _ in self.bridges]
        mentioned = [end.namespace for end in self.ends if end.namespace not in bridged]
        return tuple(dict.fromkeys([*mentioned, *bridged]))


def check_name(name: str) -> None:
    """Raise `PlaceError` for what the kernel takes for no interface name (``dev_valid_name``)."""
    size = len(name.encode())
    if size >= IFNAMSIZ:
        raise PlaceError(
            f"the interface name {name!r} is too long: {size} bytes, at most {IFNAMSIZ - 1}"
        )
    if name in {"", ".", ".."} or any(c in "/:%\0" or c.isspace() for c in name):
        raise PlaceError(
            f"{name!r} is no interface name: it needs 1 to {IFNAMSIZ - 1} characters "
            "without blanks and without / : %"
        )


@lru_cache(maxsize=1024)
def interface_address(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """Return an address with its prefix length; raise `ValueError` for what is none.

    Each test with a topology of ours asks for the same ones, many times.
    """
    return ipaddress.ip_interface(text)


def _check_address(address: str, version: int) -> None:
    try:
        valid = not address or interface_address(address).version == version
    except (ValueError, TypeError):
        valid = False
    if not valid or (address and "/" not in address):
        example = "192.0.2.1/24" if version == 4 else "2001:db8::1/64"
        raise PlaceError(f"{address!r} is no IPv{version} address with a prefix, as in {example}")


def _check_range(quantity: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise PlaceError(f"{quantity} is from {least} to {most}, not {value}")

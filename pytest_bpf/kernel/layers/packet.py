"""A packet by layers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from pytest_bpf.errors import (
    UnavailableError,
    UnknownNameError,
    ValueTypeError,
    near_matches,
)
from pytest_bpf.kernel.layers.buffers import is_packet, to_bytes
from pytest_bpf.kernel.layers.table import EXTENSIONS, walk

if TYPE_CHECKING:
    from pytest_bpf.kernel.layers.control import Icmp
    from pytest_bpf.kernel.layers.internet import Extension, Fragment, IPv4, IPv6
    from pytest_bpf.kernel.layers.link import Arp, Ethernet, Vlan
    from pytest_bpf.kernel.layers.table import Walk
    from pytest_bpf.kernel.layers.transport import Tcp, Udp
    from pytest_bpf.kernel.layers.tunnels import Geneve, Gre, Vxlan

FIRST = {"eth": "Ether", "ip": "IP", "ipv6": "IPv6"}
"""What a packet can begin with, and scapy's name for it."""


class Packet:
    """The bytes of a packet, taken apart into layers when one of them is asked for.

    ``data`` is anything that `bytes` takes, scapy's packets too. ``first`` is the layer that it
    begins with: "eth", "ip" or "ipv6". A packet equals another with the same bytes, and the bytes.
    A layer that is not there raises `UnknownNameError`; ``"tcp" in packet`` asks. A packet that
    is cut off or damaged has the layers that are whole; `faults` says what is wrong with it.
    """

    data: bytes
    first: str

    def __init__(self, data: Any, first: str = "eth") -> None:
        if first not in FIRST:
            raise ValueTypeError(f"a packet begins with eth, ip or ipv6, not with {first!r}")
        self.__dict__["data"] = to_bytes(data, "a packet")
        self.__dict__["first"] = first

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"a packet does not change; it has no {name} to set: make another one")

    if not TYPE_CHECKING:  # a type checker knows the names

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            names = [each for each in dir(type(self)) if not each.startswith("_")]
            raise AttributeError(f"a packet has no {name!r}{near_matches(name, names)}")

    def __bytes__(self) -> bytes:
        return self.data

    def __len__(self) -> int:
        return len(self.data)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Packet):
            return self.data == other.data and self.first == other.first
        if isinstance(other, (bytes, bytearray, memoryview)) or is_packet(other):
            return self.data == bytes(cast("bytes", other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.data)

    def __contains__(self, layer: str) -> bool:
        return layer in self._walk.names

    def __repr__(self) -> str:
        from pytest_bpf.kernel.layers.text import headline  # noqa: PLC0415 - by its first user

        return f"<Packet {headline(self)}>"

    def __str__(self) -> str:
        from pytest_bpf.kernel.layers.text import lines  # noqa: PLC0415 - by its first user

        return "\n".join(lines(self))

    @cached_property
    def _walk(self) -> Walk:
        return walk(self.data, self.first)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its layers, the outermost first."""
        return tuple(self._walk.names)

    def layer(self, name: str, number: int = 0) -> Any:
        """Return the layer ``name``, the ``number``-th of several.

        Raises `UnknownNameError` where there is none.
        """
        layers = self.all(name)
        if number < len(layers):
            return layers[number]
        cut = self._walk.cut
        reason = f"; {cut}" if cut and cut.layer == name else ""
        names = ", ".join(self.layers) or "none"
        which = name if not number else f"{name}[{number}]"
        raise UnknownNameError(f"this packet has no layer {which}; its layers: {names}{reason}")

    def all(self, *names: str) -> tuple[Any, ...]:
        """Return all layers with one of these names."""
        steps = self._walk
        return tuple(
            steps.read(self.data, at) for at, name in enumerate(steps.names) if name in names
        )

    @cached_property
    def eth(self) -> Ethernet:
        """Ethernet."""
        return cast("Ethernet", self.layer("eth"))

    @cached_property
    def vlan(self) -> Vlan:
        """The outer VLAN tag."""
        return cast("Vlan", self.layer("vlan"))

    @cached_property
    def vlans(self) -> tuple[Vlan, ...]:
        """All VLAN tags, the outer one first."""
        return self.all("vlan")

    @cached_property
    def arp(self) -> Arp:
        """ARP."""
        return cast("Arp", self.layer("arp"))

    @cached_property
    def ip(self) -> IPv4:
        """IPv4."""
        return cast("IPv4", self.layer("ip"))

    @cached_property
    def ipv6(self) -> IPv6:
        """IPv6."""
        return cast("IPv6", self.layer("ipv6"))

    @cached_property
    def extensions(self) -> tuple[Extension | Fragment, ...]:
        """The extension headers of IPv6."""
        return self.all(*EXTENSIONS)

    @cached_property
    def fragment(self) -> Fragment:
        """The fragment header of IPv6."""
        return cast("Fragment", self.layer("fragment"))

    @cached_property
    def udp(self) -> Udp:
        """UDP."""
        return cast("Udp", self.layer("udp"))

    @cached_property
    def tcp(self) -> Tcp:
        """TCP."""
        return cast("Tcp", self.layer("tcp"))

    @cached_property
    def icmp(self) -> Icmp:
        """ICMP."""
        return cast("Icmp", self.layer("icmp"))

    @cached_property
    def icmpv6(self) -> Icmp:
        """ICMPv6."""
        return cast("Icmp", self.layer("icmpv6"))

    @cached_property
    def gre(self) -> Gre:
        """GRE."""
        return cast("Gre", self.layer("gre"))

    @cached_property
    def vxlan(self) -> Vxlan:
        """VXLAN."""
        return cast("Vxlan", self.layer("vxlan"))

    @cached_property
    def geneve(self) -> Geneve:
        """Geneve."""
        return cast("Geneve", self.layer("geneve"))

    @property
    def payload(self) -> bytes:
        """The bytes behind the last layer, without Ethernet's padding."""
        return self.data[self._walk.begin : self._walk.end]

    @property
    def padding(self) -> bytes:
        """The bytes behind the end that the layers state."""
        return self.data[self._walk.end :]

    @cached_property
    def inner(self) -> Packet:
        """The packet within a tunnel, or the one that an error of ICMP quotes.

        Raises `UnknownNameError` where there is none.
        """
        if not self._walk.inner:
            names = ", ".join(self.layers) or "none"
            raise UnknownNameError(f"there is no packet within this one; its layers: {names}")
        return Packet(self.payload, self._walk.inner.rstrip("?"))

    @property
    def has_inner(self) -> bool:
        """Say whether there is a packet within this one."""
        return bool(self._walk.inner)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with it, one sentence each: what is cut off, lengths and checksums."""
        from pytest_bpf.kernel.layers.faults import faults  # noqa: PLC0415 - by its first user

        return tuple(faults(self, self._walk))

    def differences(self, other: Any) -> list[str]:
        """Return the fields in which it differs from another packet: ``"ip.ttl: 64, not 63"``."""
        from pytest_bpf.kernel.layers.compare import differences  # noqa: PLC0415 - by its first user

        return differences(self, other if isinstance(other, Packet) else Packet(other, self.first))

    def scapy(self) -> Any:
        """Return it as scapy's packet; raises `UnavailableError` where scapy is not installed."""
        try:
            from scapy.layers import inet, inet6, l2, vxlan  # noqa: F401, PLC0415 - 0.5 s
        except ImportError as error:
            raise UnavailableError(
                "scapy is not installed; pip install 'pytest-bpf[scapy]' does that"
            ) from error
        home = {"eth": l2, "ip": inet, "ipv6": inet6}[self.first]
        return getattr(home, FIRST[self.first])(self.data)

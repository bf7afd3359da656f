"""One row for each kind of layer, and the walk from one layer to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_bpf.kernel.layers import control, internet, link, transport, tunnels

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.kernel.layers.link import Bounds


class LayerKind(NamedTuple):
    """How a layer is read: ``least`` bytes, where it ends and what follows, and its fields.

    ``bounds`` and ``read`` take the frame, where the layer begins, and where its room ends.
    """

    least: int
    bounds: Callable[[bytes, int, int], Bounds]
    read: Callable[[bytes, int, int], Any]


KINDS = {
    "eth": LayerKind(14, link.ethernet_bounds, link.ethernet),
    "vlan": LayerKind(4, link.vlan_bounds, link.vlan),
    "arp": LayerKind(28, link.arp_bounds, link.arp),
    "ip": LayerKind(20, internet.ipv4_bounds, internet.ipv4),
    "ipv6": LayerKind(40, internet.ipv6_bounds, internet.ipv6),
    "hop_by_hop": LayerKind(8, internet.extension_bounds, internet.with_options),
    "destination": LayerKind(8, internet.extension_bounds, internet.with_options),
    "routing": LayerKind(8, internet.extension_bounds, internet.with_data),
    "authentication": LayerKind(8, internet.authentication_bounds, internet.with_data),
    "fragment": LayerKind(8, internet.fragment_bounds, internet.fragment),
    "udp": LayerKind(8, transport.udp_bounds, transport.udp),
    "tcp": LayerKind(20, transport.tcp_bounds, transport.tcp),
    "icmp": LayerKind(8, control.icmp_bounds, control.icmp),
    "icmpv6": LayerKind(8, control.icmpv6_bounds, control.icmpv6),
    "gre": LayerKind(4, tunnels.gre_bounds, tunnels.gre),
    "vxlan": LayerKind(8, tunnels.vxlan_bounds, tunnels.vxlan),
    "geneve": LayerKind(8, tunnels.geneve_bounds, tunnels.geneve),
}
"""The layers that there are."""

EXTENSIONS = ("hop_by_hop", "routing", "fragment", "destination", "authentication")
"""Those that stand between IPv6 and what it carries."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A layer that is not all there: ``size`` of at least ``needed`` bytes."""

    layer: str
    size: int
    needed: int

    def __str__(self) -> str:
        return f"{self.layer} is cut off: {self.size} of its {self.needed} bytes are there"


class Walk(NamedTuple):
    """The layers of a frame, and what is left behind the last one.

    ``edges`` are where the layers begin, and where the last one ends; ``end`` is where what they
    carry ends. ``inner`` names the first layer of a packet within this one, with a ``?`` where an
    error of ICMP quotes the beginning of one.
    """

    names: list[str]
    edges: list[int]
    end: int
    cut: Cut | None
    inner: str

    @property
    def begin(self) -> int:
        """Where what the layers carry begins."""
        return self.edges[-1]

    def read(self, data: bytes, number: int) -> Any:
        """Return the layer with that number."""
        return KINDS[self.names[number]].read(data, self.edges[number], self.edges[number + 1])


def walk(data: bytes, name: str) -> Walk:
    """Find the layers of ``data``, of which the first is ``name``, as far as they go."""
    names: list[str] = []
    at, end, cut = 0, len(data), None
    edges = [0]
    while name in KINDS:
        least, bounds, _ = KINDS[name]
        if end - at < least:
            cut = Cut(name, end - at, least)
            break
        stop, room, following = bounds(data, at, end)
        if stop > end:
            cut = Cut(name, end - at, stop - at)
            break
        names.append(name)
        edges.append(stop)
        at, end, name = stop, room, following
    inner = name[1:] if name[:1] == ">" and at < end else ""
    return Walk(names, edges, end, cut, inner)

"""Namespaces joined by cables: a pair, a router between two, hosts on a bridge, or your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.errors import PlaceError, UnknownNameError, near_matches
from pytest_bpf.errors.arguments import checked, checked_methods
from pytest_bpf.netns.layout import FIRST_IFINDEX, End, Layout
from pytest_bpf.netns.namespace import Namespace
from pytest_bpf.netns.wiring import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

MOST_HOSTS = 100
"""Hosts on a bridge: each knows all the others, so their cost grows with the square."""


@checked_methods
class Topology:
    """The namespaces of a layout, joined and addressed: ``left, right = pair()``.

    Iterating gives the namespaces in the layout's order; ``[]`` takes a name or a position.
    Close it, or use ``with``. Raises `UnavailableError` where namespaces cannot be made, and
    `PlaceError` when the kernel refuses a part; nothing is left then.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.namespaces = dict(
            zip(layout.namespaces, Namespace.create_many(layout.namespaces), strict=True)
        )
        try:
            wire(layout, self.namespaces)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Namespace]:
        return iter(self.namespaces.values())

    def __len__(self) -> int:
        return len(self.namespaces)

    def __getitem__(self, key: str | int) -> Namespace:
        if isinstance(key, int):
            return list(self)[key]
        if key not in self.namespaces:
            matches = near_matches(key, self.namespaces)
            raise UnknownNameError(f"there is no namespace {key!r} in this topology{matches}")
        return self.namespaces[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all the namespaces; the first error is raised after all were tried. Repeatable."""
        errors: list[PlaceError] = []
        for namespace in self:
            try:
                namespace.close()
            except PlaceError as error:
                errors.append(error)
        if errors:
            raise errors[0]


@checked
def pair(
    *,
    interfaces: tuple[str, str] | None = None,
    mtu: int = 1500,
    queues: int = 1,
    quiet: bool = True,
    xdp: bool = False,
    kind: str = "veth",
    ifindex: int = FIRST_IFINDEX,
) -> Topology:
    """Join the namespaces "left" (192.0.2.1/24, 2001:db8::1/64) and "right" (.2, ::2) by a veth.

    ``interfaces`` are the names of its ends, by default its ``kind`` and 0; the other options are
    those of `Layout`.
    """
    interfaces = interfaces or (f"{kind}0", f"{kind}0")
    if len(interfaces) != 2:
        raise PlaceError(f"interfaces are two names, one for each end, not {interfaces!r}")
    left = End("left", interfaces[0], "192.0.2.1/24", "2001:db8::1/64")
    right = End("right", interfaces[1], "192.0.2.2/24", "2001:db8::2/64")
    return Topology(
        Layout(
            cables=((left, right),),
            mtu=mtu,
            queues=queues,
            quiet=quiet,
            xdp=xdp,
            kind=kind,
            ifindex=ifindex,
        )
    )


@checked
def router(
    *,
    mtu: int = 1500,
    queues: int = 1,
    quiet: bool = True,
    xdp: bool = False,
    ifindex: int = FIRST_IFINDEX,
) -> Topology:
    """Join "left" and "right" by a "router" that forwards both versions of IP.

    "left" is 192.0.2.1/24 and 2001:db8:1::1/64, "right" 198.51.100.1/24 and 2001:db8:2::1/64; the
    router has .254 and ::fe of both, on its interfaces "left" and "right".
    """
    left = End("left", "veth0", "192.0.2.1/24", "2001:db8:1::1/64")
    to_left = End("router", "left", "192.0.2.254/24", "2001:db8:1::fe/64")
    to_right = End("router", "right", "198.51.100.254/24", "2001:db8:2::fe/64")
    right = End("right", "veth0", "198.51.100.1/24", "2001:db8:2::1/64")
    gateways = [
        (host.namespace, address.partition("/")[0])
        for host, gateway in ((left, to_left), (right, to_right))
        for address in (gateway.ipv4, gateway.ipv6)
    ]
    return Topology(
        Layout(
            cables=((left, to_left), (to_right, right)),
            gateways=tuple(gateways),
            forwarding=frozenset({"router"}),
            mtu=mtu,
            queues=queues,
            quiet=quiet,
            xdp=xdp,
            ifindex=ifindex,
        )
    )


@checked
def bridge(
    n: int = 3,
    *,
    mtu: int = 1500,
    queues: int = 1,
    quiet: bool = True,
    xdp: bool = False,
    ifindex: int = FIRST_IFINDEX,
) -> Topology:
    """Join "host1" to "host<n>" by the bridge "br0" in the namespace "bridge", the last one.

    Host i is 192.0.2.<i>/24 and 2001:db8::<i, hexadecimal>/64; it is behind the port "port<i>".
    """
    if not 1 <= n <= MOST_HOSTS:
        raise PlaceError(f"a bridge has from 1 to {MOST_HOSTS} hosts, not {n}")
    cables = tuple(
        (
            End(f"host{i}", "veth0", f"192.0.2.{i}/24", f"2001:db8::{i:x}/64"),
            End("bridge", f"port{i}", bridge="br0"),
        )
        for i in range(1, n + 1)
    )
    return Topology(
        Layout(
            cables=cables,
            bridges=(("bridge", "br0"),),
            mtu=mtu,
            queues=queues,
            quiet=quiet,
            xdp=xdp,
            ifindex=ifindex,
        )
    )

"""Makes the interfaces of a layout, in few system calls and without packets of the kernel's own.

The kernel joins, and reports, a multicast group for each IPv6 address and for each router, unless
the interface has IFF_NOARP and lacks IFF_MULTICAST (``addrconf_join_solict``,
``dev_forward_change``). So interfaces have these flags while they get their addresses, and get
their real flags when they come up.
"""

from __future__ import annotations

import errno
import ipaddress
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import PlaceError, PrivilegeError, UnavailableError
from pytest_bpf.kernel.sys.ethtool import prepare_for_xdp
from pytest_bpf.netns import messages as rt
from pytest_bpf.netns.layout import SMALLEST_IPV6_MTU, End, Layout, interface_address
from pytest_bpf.netns.rtnetlink import RefusedError, RouteSocket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_bpf.netns.namespace import Namespace
    from pytest_bpf.netns.rtnetlink import Request

FORWARDING = (
    Path("/proc/sys/net/ipv4/ip_forward"),
    Path("/proc/sys/net/ipv6/conf/all/forwarding"),
)
NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


@dataclass(frozen=True)
class Port:
    """A planned interface; its MAC is locally administered."""

    end: End
    index: int
    mac: str
    addresses: tuple[rt.IPInterface, ...]

    @property
    def identity(self) -> tuple[str, int, str]:
        """Name, index and MAC."""
        return self.end.interface, self.index, self.mac


@dataclass(frozen=True)
class Wiring:
    """A layout with its ports by (namespace, name), and the requests that make it."""

    layout: Layout
    ipv6: bool
    ports: Mapping[tuple[str, str], Port]

    def own(self, namespace: str) -> list[Port]:
        """Return the ports of a namespace."""
        return [port for port in self.ports.values() if port.end.namespace == namespace]

    def cabled(self, namespace: str) -> list[Port]:
        """Return the ports of a namespace that are ends of cables."""
        return [port for port in self.own(namespace) if port.end in self.layout.ends]

    def ipv6_addresses(self, namespace: str) -> list[bytes]:
        """Return the IPv6 addresses of a namespace."""
        addresses = (address for port in self.own(namespace) for address in port.addresses)
        return [address.ip.packed for address in addresses if address.version == 6]

    def make(self, namespace: str, namespaces: Mapping[str, Namespace]) -> Iterator[Request]:
        """Make the bridges of a namespace, and the cables that start in it."""
        layout = self.layout
        for name, bridge in layout.bridges:
            if name == namespace:
                identity = self.ports[name, bridge].identity
                yield rt.new_bridge(*identity, layout.mtu, snooping=not layout.quiet)
        for near, far in layout.cables:
            if near.namespace == namespace:
                here, there = (self.ports[end.namespace, end.interface] for end in (near, far))
                descriptor = namespaces[far.namespace].fileno()
                ends = here.identity, there.identity
                yield rt.new_cable(layout.kind, *ends, descriptor, layout.mtu, layout.queues)

    def address(self, namespace: str) -> Iterator[Request]:
        """Give the interfaces, which are down, their addresses."""
        for port in self.own(namespace):
            if self.layout.quiet:
                if self.ipv6:
                    yield rt.no_link_local(port.index)
                yield rt.set_flags(port.index, on=rt.IFF_NOARP, off=rt.IFF_MULTICAST)
            for address in port.addresses:
                yield rt.new_address(port.index, address)

    def start(self, namespace: str) -> Iterator[Request]:
        """Give the interfaces their real flags, and only then bring them up.

        The kernel looks at addresses again when IFF_NOARP changes on an interface that is up.
        """
        for port in self.own(namespace):
            bridge = port.end.bridge
            master = self.ports[namespace, bridge].index if bridge else 0
            if self.layout.quiet:
                yield rt.set_flags(port.index, on=rt.IFF_MULTICAST, off=rt.IFF_NOARP)
            yield rt.set_flags(port.index, on=rt.IFF_UP, master=master)

    def finish(self, namespace: str) -> Iterator[Request]:
        """Set the routes and, in a quiet layout, the neighbours."""
        if self.layout.quiet:
            for port in self.own(namespace):
                yield from self._neighbours(port)
            for ends in self.layout.cables:
                for end, other in (ends, ends[::-1]):
                    if end.bridge and end.namespace == namespace:
                        port = self.ports[namespace, end.interface]
                        mac = self.ports[other.namespace, other.interface].mac
                        yield rt.new_forwarding_entry(port.index, mac)
        for name, written in self.layout.gateways:
            gateway = ipaddress.ip_address(written)
            if name == namespace and (self.ipv6 or gateway.version == 4):
                yield rt.new_default_route(gateway)

    def _neighbours(self, port: Port) -> Iterator[Request]:
        """Add the neighbours of a port: every address of its own subnet."""
        for other in self.ports.values():
            for address in other.addresses:
                if other is not port and any(address.ip in a.network for a in port.addresses):
                    yield rt.new_neighbour(port.index, address.ip, other.mac)


def wire(layout: Layout, namespaces: Mapping[str, Namespace]) -> None:
    """Make the interfaces, addresses and routes of ``layout`` in fresh namespaces.

    Raises `UnavailableError` for what the kernel lacks, `PlaceError` for what it refuses.
    """
    first = next(iter(namespaces.values()))
    ipv6 = layout.mtu >= SMALLEST_IPV6_MTU and first.run(has_ipv6)
    wiring = Wiring(layout, ipv6, _ports(layout, ipv6=ipv6))
    with ExitStack() as stack:
        routes = {
            name: stack.enter_context(closing(namespace.run(RouteSocket)))
            for name, namespace in namespaces.items()
        }
        try:
            for name, route in routes.items():
                route.send(list(wiring.make(name, namespaces)))
            for name, route in routes.items():
                route.send(list(wiring.address(name)))
            for name in layout.forwarding:
                namespaces[name].run(_forward, name)
            for name, route in routes.items():
                route.wait(addresses=wiring.ipv6_addresses(name))
                route.send(list(wiring.start(name)))
            for name, route in routes.items():
                cabled = [port.index for port in wiring.cabled(name)]
                route.send([rt.get_link(index) for index in cabled])
                route.wait(up=cabled)
                route.send(list(wiring.finish(name)))
                if layout.xdp and cabled:
                    names = [port.end.interface for port in wiring.cabled(name)]
                    namespaces[name].run(prepare_for_xdp, names)
        except RefusedError as error:
            raise _explain(error) from error
    if layout.xdp:
        for cable in layout.cables:
            for end, other in (cable, cable[::-1]):
                index = wiring.ports[end.namespace, end.interface].index
                peer = wiring.ports[other.namespace, other.interface].index
                namespaces[end.namespace].xdp_peers[index] = namespaces[other.namespace], peer


def _ports(layout: Layout, *, ipv6: bool) -> dict[tuple[str, str], Port]:
    """Give every interface its index, and its MAC: 02, "bpf" and a number.

    No index is used twice: where an interface has that of its peer, kernels before 6.8 take up to a
    second to notice its carrier (``linkwatch_urgent_event``).
    """
    ends = {(end.namespace, end.interface): end for end in layout.ends}
    ports = {}
    for number, (namespace, name) in enumerate(layout.interfaces, start=1):
        end = ends.get((namespace, name), End(namespace, name))
        written = (end.ipv4, end.ipv6 if ipv6 else "")
        ports[namespace, name] = Port(
            end,
            layout.ifindex + number - 1,
            f"02:62:70:66:{number >> 8:02x}:{number & 0xFF:02x}",
            tuple(interface_address(address) for address in written if address),
        )
    return ports


def has_ipv6() -> bool:
    """Say whether interfaces of the calling thread's namespace get IPv6 addresses."""
    try:
        return NO_IPV6.read_text() == "0\n"
    except OSError:
        return False


def _forward(namespace: str) -> None:
    for switch in FORWARDING:
        try:
            switch.write_text("1")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UnavailableError(
                f"{switch} of namespace {namespace!r} cannot be written ({error.strerror}), "
                "so it cannot forward; is /proc/sys mounted read-only?"
            ) from error


def _explain(error: RefusedError) -> PlaceError | UnavailableError:
    description, reason = error.request.description, error.strerror
    if error.errno == errno.EOPNOTSUPP:
        return UnavailableError(f"this kernel cannot make {description}: {reason}")
    if error.errno == errno.EPERM:
        return PrivilegeError(f"making {description}", "CAP_NET_ADMIN")
    return PlaceError(f"the kernel refused {description}: {reason}")

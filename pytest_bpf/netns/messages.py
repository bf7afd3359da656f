"""The rtnetlink requests in use (rtnetlink(7)): a fixed part, then attributes, all packed by hand.

A netlink library does the same, and its import costs a test session 0.15 s.
"""

from __future__ import annotations

import ipaddress
import socket
from struct import Struct, pack

from pytest_bpf.netns.rtnetlink import HEADER, Request

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 18, 20, 24
RTM_NEWNEIGH, RTM_NEWQDISC = 28, 36
REQUEST, REPLACE, EXCLUSIVE, CREATE = 1, 0x100, 0x200, 0x400

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_NET_NS_FD = 18, 26, 28
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
INFO_PEER, IFLA_NETKIT_MODE, NETKIT_L2 = 1, 5, 0
IFLA_BR_MCAST_SNOOPING, IFLA_INET6_ADDR_GEN_MODE = 23, 8
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
NDA_DST, NDA_LLADDR, RTA_GATEWAY = 1, 2, 5
TCA_KIND, TCA_OPTIONS, TCA_NETEM_RATE = 1, 2, 6

IFF_UP, IFF_NOARP, IFF_MULTICAST = 0x1, 0x80, 0x1000
IN6_ADDR_GEN_MODE_NONE = 1
IFA_F_NODAD = 2
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_MASTER = 4
AF_BRIDGE = 7
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
TC_H_ROOT = 0xFFFFFFFF

LINK = Struct("=BxHiII")
"""``struct ifinfomsg``: family, type, index, flags, which of them change."""

ADDRESS = Struct("=BBBBI")
"""``struct ifaddrmsg``: family, prefix length, flags, scope, index."""

NEIGHBOUR = Struct("=B3xiHBB")
"""``struct ndmsg``: family, index, state, flags, type."""

ROUTE = Struct("=8BI")
"""``struct rtmsg``: family, lengths of destination and source, TOS, table, protocol, scope, type,
flags."""

QDISC = Struct("=B3xiIII")
"""``struct tcmsg``: family, index, handle, parent, info."""

NETEM = Struct("=6I")
"""``struct tc_netem_qopt``: latency, limit, loss, gap, duplicate, jitter."""

IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _request(kind: int, flags: int, description: str, fixed: bytes, *attributes: bytes) -> Request:
    body = fixed + b"".join(attributes)
    return Request(
        HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, 0, 0) + body, description
    )


def _attribute(kind: int, *values: bytes) -> bytes:
    """Encode a ``struct nlattr``; nested attributes are the values of the one around them."""
    value = b"".join(values)
    return pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _mac(kind: int, value: str) -> bytes:
    return _attribute(kind, bytes.fromhex(value.replace(":", "")))


def _family(address: IPInterface | IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _link_attributes(name: str, mac: str, mtu: int) -> bytes:
    return _text(IFLA_IFNAME, name) + _mac(IFLA_ADDRESS, mac) + _number(IFLA_MTU, mtu)


def _link_info(kind: str, *data: bytes) -> bytes:
    info = (_text(IFLA_INFO_KIND, kind), _attribute(IFLA_INFO_DATA, *data))
    return _attribute(IFLA_LINKINFO, *info)


def new_cable(  # noqa: PLR0917 (a pair of ends, and what both share)
    kind: str,
    here: tuple[str, int, str],
    there: tuple[str, int, str],
    descriptor: int,
    mtu: int,
    queues: int,
) -> Request:
    """Make a veth or a netkit: one end, (name, index, MAC), here, the other in another namespace.

    The end that is here is the primary one of a netkit.
    """
    numbers = _number(IFLA_NUM_TX_QUEUES, queues) + _number(IFLA_NUM_RX_QUEUES, queues)
    near, far = (_link_attributes(name, mac, mtu) + numbers for name, _, mac in (here, there))
    peer_link = LINK.pack(socket.AF_UNSPEC, 0, there[1], 0, 0)
    peer = _attribute(INFO_PEER, peer_link, far, _number(IFLA_NET_NS_FD, descriptor))
    layer_2 = _number(IFLA_NETKIT_MODE, NETKIT_L2) if kind == "netkit" else b""
    link = LINK.pack(socket.AF_UNSPEC, 0, here[1], 0, 0)
    description = f"a {kind} from {here[0]!r} to {there[0]!r}"
    info = _link_info(kind, peer + layer_2)
    return _request(RTM_NEWLINK, CREATE | EXCLUSIVE, description, link, near, info)


def new_bridge(name: str, index: int, mac: str, mtu: int, *, snooping: bool) -> Request:
    """Make a bridge; with multicast snooping it reports itself to routers now and then."""
    link = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    kind = _link_info("bridge", _attribute(IFLA_BR_MCAST_SNOOPING, bytes([snooping])))
    flags, description = CREATE | EXCLUSIVE, f"a bridge {name!r}"
    return _request(RTM_NEWLINK, flags, description, link, _link_attributes(name, mac, mtu), kind)


def no_link_local(index: int) -> Request:
    """Give an interface no link-local IPv6 address."""
    mode = _attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    ipv6 = _attribute(IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode))
    link = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return _request(RTM_NEWLINK, 0, f"addr_gen_mode none on interface {index}", link, ipv6)


def set_flags(index: int, *, on: int = 0, off: int = 0, master: int = 0) -> Request:
    """Change the flags of an interface (``netdevice(7)``), and make it the port of a bridge."""
    link = LINK.pack(socket.AF_UNSPEC, 0, index, on, on | off)
    description = f"the flags +{on:#x} -{off:#x} on interface {index}"
    return _request(
        RTM_NEWLINK, 0, description, link, _number(IFLA_MASTER, master) if master else b""
    )


def get_link(index: int) -> Request:
    """Get an interface; the kernel first updates its carrier state."""
    link = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return _request(RTM_GETLINK, 0, f"interface {index}", link)


def new_address(index: int, address: IPInterface) -> Request:
    """Give an interface an address, without looking for others that have it (IFA_F_NODAD)."""
    flags = IFA_F_NODAD if address.version == 6 else 0
    return _request(
        RTM_NEWADDR,
        CREATE | EXCLUSIVE,
        f"the address {address} on interface {index}",
        ADDRESS.pack(_family(address), address.network.prefixlen, flags, 0, index),
        _attribute(IFA_LOCAL, address.ip.packed),
        _attribute(IFA_ADDRESS, address.ip.packed),
        _number(IFA_FLAGS, flags),
    )


def new_neighbour(index: int, address: IPAddress, mac: str) -> Request:
    """Add a permanent neighbour, so that nobody asks for its address."""
    neighbour = NEIGHBOUR.pack(_family(address), index, NUD_PERMANENT, 0, 0)
    flags, description = CREATE | REPLACE, f"the neighbour {address} on interface {index}"
    pair = _attribute(NDA_DST, address.packed) + _mac(NDA_LLADDR, mac)
    return _request(RTM_NEWNEIGH, flags, description, neighbour, pair)


def new_forwarding_entry(index: int, mac: str) -> Request:
    """Add the MAC behind a port to a bridge, so that nothing is flooded."""
    entry = NEIGHBOUR.pack(AF_BRIDGE, index, NUD_NOARP, NTF_MASTER, 0)
    flags, description = CREATE | REPLACE, f"the forwarding entry {mac} on port {index}"
    return _request(RTM_NEWNEIGH, flags, description, entry, _mac(NDA_LLADDR, mac))


def new_default_route(gateway: IPAddress) -> Request:
    """Add the default route by a gateway."""
    origin = (RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST)
    route = ROUTE.pack(_family(gateway), 0, 0, 0, *origin, 0)
    flags, description = CREATE | EXCLUSIVE, f"the default route by {gateway}"
    return _request(
        RTM_NEWROUTE, flags, description, route, _attribute(RTA_GATEWAY, gateway.packed)
    )


def netem(index: int, *, delay: int, jitter: int, loss: int, rate: int, limit: int) -> Request:
    """Make netem an interface's root queue discipline (``struct tc_netem_qopt``).

    ``delay`` and ``jitter`` in the kernel's ticks of 64 ns, ``loss`` as a share of 2**32 - 1,
    ``rate`` in bytes a second or 0, ``limit`` in packets.
    """
    options = NETEM.pack(delay, limit, loss, 0, 0, jitter)
    # struct tc_netem_rate; without it, netem would keep the rate it had
    options += _attribute(TCA_NETEM_RATE, pack("=IiIi", rate, 0, 0, 0))
    qdisc = QDISC.pack(socket.AF_UNSPEC, index, 0x10000, TC_H_ROOT, 0)
    flags, description = CREATE | REPLACE, f"netem on interface {index}"
    kind = _text(TCA_KIND, "netem")
    return _request(RTM_NEWQDISC, flags, description, qdisc, kind, _attribute(TCA_OPTIONS, options))

"""The rtnetlink requests in use, encoded by pyroute2's message classes and kept by their arguments.

Importing this module imports pyroute2, which takes 0.1 s: import it where it is first needed.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from pytest_bpf.places.netlink import Request

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 18, 20, 24
RTM_NEWNEIGH, RTM_NEWQDISC = 28, 36
REQUEST, REPLACE, EXCLUSIVE, CREATE = 1, 0x100, 0x200, 0x400
IFF_UP, IFF_NOARP, IFF_MULTICAST = 0x1, 0x80, 0x1000
IN6_ADDR_GEN_MODE_NONE = 1
IFA_F_NODAD = 2
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_MASTER = 4
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
TC_H_ROOT = 0xFFFFFFFF

kept = lru_cache(maxsize=4096)
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Attributes = list[list[Any]]
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _request(
    made: Any, kind: int, how: int, what: str, attributes: Attributes, /, **fields: int
) -> Request:
    made["header"]["type"] = kind
    made["header"]["flags"] = REQUEST | how
    for name, value in fields.items():
        made[name] = value
    made["attrs"] = attributes
    made.encode()
    return Request(bytes(made.data), what)


def _family(address: IPInterface | IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _link(name: str, mac: str, mtu: int) -> Attributes:
    return [["IFLA_IFNAME", name], ["IFLA_ADDRESS", mac], ["IFLA_MTU", mtu]]


@kept
def new_veth(
    here: tuple[str, int, str], there: tuple[str, int, str], descriptor: int, mtu: int, queues: int
) -> Request:
    """Make a veth with one end, (name, index, MAC), here and the other in another namespace."""
    numbers: Attributes = [["IFLA_NUM_TX_QUEUES", queues], ["IFLA_NUM_RX_QUEUES", queues]]
    near, far = (_link(name, mac, mtu) + numbers for name, _, mac in (here, there))
    peer = {"index": there[1], "attrs": [*far, ["IFLA_NET_NS_FD", descriptor]]}
    data: list[Any] = ["IFLA_INFO_DATA", {"attrs": [["VETH_INFO_PEER", peer]]}]
    info: list[Any] = ["IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", "veth"], data]}]
    what = f"a veth from {here[0]!r} to {there[0]!r}"
    return _request(ifinfmsg(), RTM_NEWLINK, CREATE | EXCLUSIVE, what, [*near, info], index=here[1])


@kept
def new_bridge(name: str, index: int, mac: str, mtu: int, *, snooping: bool) -> Request:
    """Make a bridge; with multicast snooping it reports itself to routers now and then."""
    data: list[Any] = ["IFLA_INFO_DATA", {"attrs": [["IFLA_BR_MCAST_SNOOPING", int(snooping)]]}]
    info: list[Any] = ["IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", "bridge"], data]}]
    attributes = [*_link(name, mac, mtu), info]
    flags = CREATE | EXCLUSIVE
    return _request(ifinfmsg(), RTM_NEWLINK, flags, f"a bridge {name!r}", attributes, index=index)


@kept
def no_link_local(index: int) -> Request:
    """Let an interface have no IPv6 address but those it is given."""
    mode = ["IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE]
    attributes = [["IFLA_AF_SPEC", {"attrs": [["AF_INET6", {"attrs": [mode]}]]}]]
    what = f"addr_gen_mode none on interface {index}"
    return _request(ifinfmsg(), RTM_NEWLINK, 0, what, attributes, index=index)


@kept
def set_flags(index: int, *, on: int = 0, off: int = 0, master: int = 0) -> Request:
    """Change the flags of an interface (``netdevice(7)``), and make it the port of a bridge."""
    attributes = [["IFLA_MASTER", master]] if master else []
    what = f"the flags +{on:#x} -{off:#x} on interface {index}"
    fields = {"index": index, "flags": on, "change": on | off}
    return _request(ifinfmsg(), RTM_NEWLINK, 0, what, attributes, **fields)


@kept
def get_link(index: int) -> Request:
    """Ask for an interface; the kernel first does what it has put off about its carrier."""
    return _request(ifinfmsg(), RTM_GETLINK, 0, f"interface {index}", [], index=index)


@kept
def new_address(index: int, address: IPInterface) -> Request:
    """Give an interface an address, without looking for others that have it (IFA_F_NODAD)."""
    attributes: Attributes = [["IFA_LOCAL", str(address.ip)], ["IFA_ADDRESS", str(address.ip)]]
    if address.version == 6:
        attributes.append(["IFA_FLAGS", IFA_F_NODAD])
    fields = {
        "family": _family(address),
        "prefixlen": address.network.prefixlen,
        "index": index,
        "flags": IFA_F_NODAD if address.version == 6 else 0,
    }
    what = f"the address {address} on interface {index}"
    return _request(ifaddrmsg(), RTM_NEWADDR, CREATE | EXCLUSIVE, what, attributes, **fields)


@kept
def new_neighbour(index: int, address: IPAddress, mac: str) -> Request:
    """Tell for good who has an address, so that nobody asks."""
    fields = {"family": _family(address), "ifindex": index, "state": NUD_PERMANENT}
    attributes = [["NDA_DST", str(address)], ["NDA_LLADDR", mac]]
    what = f"the neighbour {address} on interface {index}"
    return _request(ndmsg(), RTM_NEWNEIGH, CREATE | REPLACE, what, attributes, **fields)


@kept
def new_forwarding_entry(index: int, mac: str) -> Request:
    """Tell a bridge which port a MAC is behind, so that nothing is flooded."""
    fields = {
        "family": socket.AF_BRIDGE if hasattr(socket, "AF_BRIDGE") else 7,
        "ifindex": index,
        "state": NUD_NOARP,
        "flags": NTF_MASTER,
    }
    what = f"the forwarding entry {mac} on port {index}"
    attributes = [["NDA_LLADDR", mac]]
    return _request(ndmsg(), RTM_NEWNEIGH, CREATE | REPLACE, what, attributes, **fields)


@kept
def new_default_route(gateway: IPAddress) -> Request:
    """Send what is for elsewhere to a gateway."""
    fields = {
        "family": _family(gateway),
        "table": RT_TABLE_MAIN,
        "proto": RTPROT_STATIC,
        "type": RTN_UNICAST,
    }
    attributes = [["RTA_GATEWAY", str(gateway)]]
    what = f"the default route by {gateway}"
    return _request(rtmsg(), RTM_NEWROUTE, CREATE | EXCLUSIVE, what, attributes, **fields)


def netem(index: int, *, delay: int, jitter: int, loss: int, rate: int, limit: int) -> Request:
    """Make netem an interface's root queue discipline (``struct tc_netem_qopt``).

    ``delay`` and ``jitter`` in the kernel's ticks of 64 ns, ``loss`` as a share of 2**32 - 1,
    ``rate`` in bytes a second or 0, ``limit`` in packets.
    """
    options: dict[str, Any] = {"delay": delay, "jitter": jitter, "loss": loss, "limit": limit}
    options |= {"gap": 0, "duplicate": 0, "attrs": []}
    if rate:
        cell = {"packet_overhead": 0, "cell_size": 0, "cell_overhead": 0}
        options["attrs"] = [["TCA_NETEM_RATE", {"rate": rate, **cell}]]
    attributes: Attributes = [["TCA_KIND", "netem"], ["TCA_OPTIONS", options]]
    what = f"netem on interface {index}"
    fields = {"index": index, "parent": TC_H_ROOT, "handle": 0x10000}
    return _request(tcmsg(), RTM_NEWQDISC, CREATE | REPLACE, what, attributes, **fields)

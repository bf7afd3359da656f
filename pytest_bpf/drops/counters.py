"""The counters of the calling thread's network namespace: interfaces, qdiscs and drivers."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.drops.counts import InterfaceDrops, QdiscDrops
from pytest_bpf.kernel.sys.ethtool import SIOCETHTOOL
from pytest_bpf.netns.rtnetlink import HEADER, NLMSG_ERROR, attributes, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

RTM_GETLINK, RTM_GETQDISC = 18, 38
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_DONE = 1, 0x300, 3
IFINFOMSG, TCMSG = 16, 20
IFLA_IFNAME, IFLA_STATS64, IFLA_XDP = 3, 23, 43
IFLA_XDP_ATTACHED, XDP_ATTACHED_SKB, XDP_ATTACHED_MULTI = 2, 2, 4
TCA_KIND, TCA_STATS2, TCA_STATS_QUEUE = 1, 7, 3
"""linux/rtnetlink.h, linux/if_link.h, linux/gen_stats.h."""

SO_NETNS_COOKIE = 71
ETHTOOL_GSTRINGS, ETHTOOL_GSTATS, ETHTOOL_GSSET_INFO = 0x1B, 0x1D, 0x37
ETH_SS_STATS, ETH_GSTRING_LEN = 1, 32
"""asm-generic/socket.h, linux/sockios.h, linux/ethtool.h."""


@dataclass(frozen=True)
class Counters:
    """What one namespace counts; ``generic_xdp``: interfaces with such a program attached."""

    interfaces: dict[str, InterfaceDrops]
    qdiscs: dict[tuple[str, str], QdiscDrops]
    drivers: dict[tuple[str, str], int]
    generic_xdp: set[str]


def netns_cookie() -> int:
    """Return the namespace's number that no other ever has; 0 before Linux 5.14."""
    with socket.socket(socket.AF_UNIX) as any_socket:
        try:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:
            return 0
    return int(struct.unpack("=Q", raw)[0])


def read_counters() -> Counters:
    """Read them all: two dumps of rtnetlink, and three ioctls for each interface."""
    names: dict[int, str] = {}
    interfaces: dict[str, InterfaceDrops] = {}
    qdiscs: defaultdict[tuple[str, str], QdiscDrops] = defaultdict(QdiscDrops)
    generic_xdp = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        for index, link in _dump(route, RTM_GETLINK, IFINFOMSG):
            name = names[index] = link[IFLA_IFNAME].rstrip(b"\0").decode()
            rx_errors, tx_errors, rx, tx = struct.unpack_from("=32x4Q", link[IFLA_STATS64])
            interfaces[name] = InterfaceDrops(rx, tx, rx_errors, tx_errors)
            mode = attributes(link.get(IFLA_XDP, b""), 0).get(IFLA_XDP_ATTACHED, b"\0")[0]
            if mode in {XDP_ATTACHED_SKB, XDP_ATTACHED_MULTI}:
                generic_xdp.add(name)
        for index, qdisc in _dump(route, RTM_GETQDISC, TCMSG):
            where = names.get(index, str(index)), qdisc[TCA_KIND].rstrip(b"\0").decode()
            queue = attributes(qdisc.get(TCA_STATS2, b""), 0).get(TCA_STATS_QUEUE, bytes(20))
            drops, overlimits = struct.unpack_from("=8xI4xI", queue)
            before = qdiscs[where]
            qdiscs[where] = QdiscDrops(before.drops + drops, before.overlimits + overlimits)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ioctls:
        drivers = {
            (name, counter): packets
            for name in interfaces
            for counter, packets in driver_counters(ioctls, name)
            if "drop" in counter or "err" in counter
        }
    return Counters(interfaces, dict(qdiscs), drivers, generic_xdp)


def read_qdisc_drops() -> dict[tuple[str, str, str], int]:
    """Return packets by reason, interface and qdisc, of qdiscs of this namespace that dropped some.

    The reasons are ``TC_ACT_SHOT`` of ``clsact`` and ``ingress``, which run tc programs, and
    ``QDISC_DROP`` of the others.
    """
    return {
        ("TC_ACT_SHOT" if kind in {"clsact", "ingress"} else "QDISC_DROP", interface, kind): q.drops
        for (interface, kind), q in read_counters().qdiscs.items()
        if q.drops
    }


def _dump(route: socket.socket, kind: int, header: int) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Ask for all of a kind, whose own header is that long; yield (ifindex, attributes) of each."""
    body = bytes(header)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    route.send(HEADER.pack(HEADER.size + header, kind, flags, kind, 0) + body)
    while True:
        for answer, _, _, content in messages(route.recv(1 << 18)):
            if answer == NLMSG_ERROR:
                code = -struct.unpack_from("=i", content)[0]
                raise OSError(code, errno.errorcode.get(code, str(code)))
            if answer == NLMSG_DONE:
                return
            yield struct.unpack_from("=4xi", content)[0], attributes(content, header)


def driver_counters(ioctls: socket.socket, interface: str) -> Iterator[tuple[str, int]]:
    """Yield the names and values that ``ethtool -S`` shows; nothing where there are none."""
    try:
        request = struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0)
        mask, count = struct.unpack("=8xQI", _ethtool(ioctls, interface, request))
        if not mask:
            return
        request = struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_STATS, count)
        names = _ethtool(ioctls, interface, request + bytes(ETH_GSTRING_LEN * count))[12:]
        request = struct.pack("=II", ETHTOOL_GSTATS, count)
        values = struct.unpack(
            f"=8x{count}Q", _ethtool(ioctls, interface, request + bytes(8 * count))
        )
    except OSError:
        return
    for number, value in enumerate(values):
        name = names[ETH_GSTRING_LEN * number : ETH_GSTRING_LEN * (number + 1)]
        yield name.partition(b"\0")[0].decode(errors="replace"), value


def _ethtool(ioctls: socket.socket, interface: str, request: bytes) -> bytes:
    """Do one ethtool command and return its structure as the kernel has filled it in."""
    memory = ctypes.create_string_buffer(request, len(request))
    fcntl.ioctl(
        ioctls,
        SIOCETHTOOL,
        struct.pack("16sP16x", interface.encode(), ctypes.addressof(memory)),
    )
    return memory.raw

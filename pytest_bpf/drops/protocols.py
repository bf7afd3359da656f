"""What the protocols of a network namespace count: packets in and out, and those thrown away.

A namespace of a test began with zeros, so these counters tell what happened in it, though nobody
watched: no program is loaded for them.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.drops.counters import driver_counters

if TYPE_CHECKING:
    from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    "Udp.InCsumErrors": "UDP_CSUM",
    "Udp6.InCsumErrors": "UDP_CSUM",
    "Udp.NoPorts": "NO_SOCKET",
    "Udp6.NoPorts": "NO_SOCKET",
    "Udp.RcvbufErrors": "SOCKET_RCVBUFF",
    "Udp6.RcvbufErrors": "SOCKET_RCVBUFF",
    "Tcp.InCsumErrors": "TCP_CSUM",
    "Icmp.InCsumErrors": "ICMP_CSUM",
    "Icmp6.InCsumErrors": "ICMP_CSUM",
    "IpExt.InCsumErrors": "IP_CSUM",
    "Ip.InHdrErrors": "IP_INHDR",
    "Ip6.InHdrErrors": "IP_INHDR",
    "Ip.InAddrErrors": "IP_INADDRERRORS",
    "Ip6.InAddrErrors": "IP_INADDRERRORS",
    "Ip.InUnknownProtos": "IP_NOPROTO",
    "Ip6.InUnknownProtos": "IP_NOPROTO",
    "IpExt.InNoRoutes": "IP_INNOROUTES",
    "Ip6.InNoRoutes": "IP_INNOROUTES",
    "Ip.OutNoRoutes": "IP_OUTNOROUTES",
    "Ip6.OutNoRoutes": "IP_OUTNOROUTES",
    "IpExt.InTruncatedPkts": "PKT_TOO_SMALL",
    "Ip6.InTruncatedPkts": "PKT_TOO_SMALL",
    "TcpExt.IPReversePathFilter": "IP_RPFILTER",
    "TcpExt.ListenOverflows": "TCP_LISTEN_OVERFLOW",
    "TcpExt.TCPBacklogDrop": "SOCKET_BACKLOG",
    "TcpExt.TCPMD5Failure": "TCP_MD5FAILURE",
}
"""The kernel's drop reason for each counter of ``/proc/net/snmp``, ``snmp6`` and ``netstat``."""

_XDP = re.compile(r"rx_queue_\d+_(xdp_packets|xdp_drops|xdp_redirect|xdp_tx)")


@dataclass(frozen=True)
class InterfaceCounts:
    """What went through one interface, in packets; ``xdp`` is what native XDP did, by counter."""

    rx: int
    tx: int
    xdp: Mapping[str, int]


NET = Path("/proc/thread-self/net")
"""The counters of the calling thread's network namespace."""


def read_interfaces() -> dict[str, InterfaceCounts]:
    """Return what went through each interface of the calling thread's network namespace."""
    interfaces = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ioctls:
        for line in (NET / "dev").read_text(encoding="ascii").splitlines()[2:]:
            name, _, numbers = line.partition(":")
            fields = numbers.split()
            xdp: dict[str, int] = {}
            for counter, value in driver_counters(ioctls, name.strip()):
                if (match := _XDP.fullmatch(counter)) and value:
                    xdp[match[1]] = xdp.get(match[1], 0) + value
            interfaces[name.strip()] = InterfaceCounts(int(fields[1]), int(fields[9]), xdp)
    return interfaces


def read_drops() -> dict[str, int]:
    """Return the packets that were dropped there, by the counter, of `REASONS`."""
    return {
        counter: value for counter, value in _counters().items() if value and counter in REASONS
    }


def _counters() -> dict[str, int]:
    """Return all counters by ``Protocol.Name``; a kernel without IPv6 has none of it."""
    counters: dict[str, int] = {}
    for name in ("snmp", "netstat"):
        lines = (NET / name).read_text(encoding="ascii").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            protocol, _, keys = names.partition(":")
            for key, value in zip(keys.split(), values.split()[1:], strict=False):
                counters[f"{protocol}.{key}"] = int(value)
    version_6 = NET / "snmp6"
    for line in version_6.read_text(encoding="ascii").splitlines() if version_6.exists() else ():
        key, _, value = line.partition(" ")
        if match := re.match(r"((?:Ip|Udp|Icmp)6)(\w+)", key):
            counters[f"{match[1]}.{match[2]}"] = int(value)
    return counters

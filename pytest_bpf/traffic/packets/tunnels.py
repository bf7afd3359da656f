"""Frames within frames: VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, 2890)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors.arguments import checked
from pytest_bpf.kernel.layers.transport import GENEVE_PORT
from pytest_bpf.traffic.packets.ip import GRE, ip_frame, udp_frame
from pytest_bpf.traffic.packets.sides import CLIENT, SERVER
from pytest_bpf.traffic.result import check_range, to_bytes

if TYPE_CHECKING:
    from pytest_bpf.traffic.packets.sides import Side

VXLAN_PORT = 4789
ETHERNET = 0x6558
"""The Ethernet type that says that an Ethernet frame follows."""


@checked
def vxlan_frame(
    inner: Any,
    src: Side = CLIENT,
    dst: Side = SERVER,
    *,
    vni: int = 1,
    sport: int = 40000,
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
) -> bytes:
    """Return a frame that carries the frame ``inner`` in VXLAN."""
    check_range("vni", vni, 0, 0xFFFFFF)
    data = struct.pack("!II", 0x08000000, vni << 8) + to_bytes("the inner frame", inner)
    return udp_frame(
        src, dst, sport=sport, dport=VXLAN_PORT, payload=data, ipv6=ipv6, ttl=ttl, tos=tos
    )


@checked
def geneve_frame(
    inner: Any,
    src: Side = CLIENT,
    dst: Side = SERVER,
    *,
    vni: int = 1,
    sport: int = 40000,
    options: bytes = b"",
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
) -> bytes:
    """Return a frame that carries the frame ``inner`` in Geneve."""
    check_range("vni", vni, 0, 0xFFFFFF)
    check_range("words of options", len(options) // 4, 0, 63)
    head = struct.pack("!BBHI", len(options) // 4, 0, ETHERNET, vni << 8) + options
    data = head + to_bytes("the inner frame", inner)
    return udp_frame(
        src, dst, sport=sport, dport=GENEVE_PORT, payload=data, ipv6=ipv6, ttl=ttl, tos=tos
    )


@checked
def gre_frame(
    inner: Any,
    src: Side = CLIENT,
    dst: Side = SERVER,
    *,
    key: int | None = None,
    ipv6: bool = False,
    ttl: int = 64,
    tos: int = 0,
) -> bytes:
    """Return a frame that carries the frame ``inner`` in GRE, with a ``key`` or without one."""
    head = struct.pack("!HH", 0 if key is None else 0x2000, ETHERNET)
    if key is not None:
        check_range("key", key, 0, 0xFFFFFFFF)
        head += struct.pack("!I", key)
    data = head + to_bytes("the inner frame", inner)
    return ip_frame(src, dst, GRE, data, None, ipv6=ipv6, ttl=ttl, tos=tos, vlan=None)

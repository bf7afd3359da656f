"""Packets as text: one line, or one line a layer."""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.layers.values import Option

if TYPE_CHECKING:
    from pytest_bpf.kernel.layers.packet import Packet

HEXADECIMAL = {"type": 4, "checksum": 4, "flow_label": 5, "flags": 2, "tos": 2, "traffic_class": 2}
"""Fields that are read in hexadecimal, and their digits."""

SMALLEST_TYPE = 1536
"""Below it an Ethernet type is a length, and a type of ICMP is a number as well."""

LONGEST = 32
"""Bytes of a payload that are shown."""


def format_value(field: str, value: Any) -> str:
    """Return a field's value as one reads it."""
    if type(value) is int:
        digits = HEXADECIMAL.get(field) if field != "type" or value >= SMALLEST_TYPE else None
        return f"0x{value:0{digits}x}" if digits else str(value)
    if isinstance(value, IntFlag):
        return "|".join(flag.name or "" for flag in type(value) if flag & value) or "0"
    if isinstance(value, bytes):
        return _hex(value)
    if isinstance(value, tuple) and value and isinstance(value[0], Option):
        return "(" + ", ".join(_option(option) for option in value) + ")"
    return str(value)


def format_layer(layer: Any) -> str:
    """Return the fields of a layer, without those that say nothing."""
    parts = []
    for field, value in zip(layer._fields, layer, strict=True):
        if value not in {None, (), b""} and value is not False:
            parts.append(f"{field} {format_value(field, value)}")
    return ", ".join(parts)


def headline(packet: Packet) -> str:
    """Return the layers, who sends to whom, and the size, in one line."""
    names = "/".join(packet.layers) or "no layer"
    level: Packet = packet
    while level.has_inner:
        level = level.inner
        names += f"/{'/'.join(level.layers)}"
    return ", ".join(part for part in (names, _ends(packet), f"{len(packet)} bytes") if part)


def _ends(packet: Packet) -> str:
    network = next((n for n in ("ip", "ipv6", "arp", "eth") if n in packet), "")
    if not network:
        return ""
    layer = packet.layer(network)
    if network == "arp":
        return f"{layer.sender_ip} > {layer.target_ip}"
    ports = next((packet.layer(name) for name in ("udp", "tcp") if name in packet), None)
    if ports is None:
        return f"{layer.src} > {layer.dst}"
    around = ("[", "]") if network == "ipv6" else ("", "")
    src, dst = (f"{around[0]}{address}{around[1]}" for address in (layer.src, layer.dst))
    return f"{src}:{ports.sport} > {dst}:{ports.dport}"


def lines(packet: Packet, indent: str = "") -> list[str]:
    """Return a line for each layer, for the payload, and for each fault."""
    result = []
    for number, name in enumerate(packet.layers):
        earlier = packet.layers[:number].count(name)
        result.append(f"{indent}{name}: {format_layer(packet.layer(name, earlier))}")
    if packet.has_inner:
        result += lines(packet.inner, indent + "  ")
    elif packet.payload:
        result.append(f"{indent}payload: {len(packet.payload)} bytes: {_hex(packet.payload)}")
    if packet.padding:
        result.append(f"{indent}padding: {len(packet.padding)} bytes")
    if not indent:
        result += [f"wrong: {fault}" for fault in packet.faults]
    return result


def _hex(data: bytes) -> str:
    more = " ..." if len(data) > LONGEST else ""
    return data[:LONGEST].hex(" ") + more


def _option(option: Option) -> str:
    if option.value in (None, b""):
        return option.name
    return f"{option.name} {format_value('', option.value)}"

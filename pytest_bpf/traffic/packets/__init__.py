"""Frames for `BPF_PROG_RUN` and raw sockets.

Every checksum and length is right, so a frame sent to a real stack is accepted.
"""

from __future__ import annotations

from pytest_bpf.traffic.packets.fragments import fragments
from pytest_bpf.traffic.packets.ip import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    icmp_frame,
    tcp_frame,
    udp_frame,
)
from pytest_bpf.traffic.packets.neighbours import arp_frame, ndp_frame
from pytest_bpf.traffic.packets.sides import CLIENT, SERVER, Addresses, Host
from pytest_bpf.traffic.packets.tunnels import geneve_frame, gre_frame, vxlan_frame

__all__ = [
    "ACK",
    "CLIENT",
    "FIN",
    "PSH",
    "RST",
    "SERVER",
    "SYN",
    "URG",
    "Addresses",
    "Host",
    "arp_frame",
    "fragments",
    "geneve_frame",
    "gre_frame",
    "icmp_frame",
    "ndp_frame",
    "tcp_frame",
    "udp_frame",
    "vxlan_frame",
]

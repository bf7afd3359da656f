"""Switches of an interface of the calling thread's network namespace: ``ethtool -K``."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
ETHTOOL_GGRO, ETHTOOL_SGRO = 0x2B, 0x2C
"""linux/sockios.h, linux/ethtool.h."""


def switch(control: socket.socket, ifname: str, command: int, value: bool = False) -> bool:
    """Do one command of ``struct ethtool_value`` by a socket of the namespace; return its value.

    Raises `OSError`.
    """
    memory = ctypes.create_string_buffer(struct.pack("II", command, value), 8)
    request = struct.pack("16sP16x", ifname.encode(), ctypes.addressof(memory))
    fcntl.ioctl(control, SIOCETHTOOL, request)
    return bool(struct.unpack("II", memory.raw)[1])


def gro(control: socket.socket, ifname: str, *, turn_on: bool | None = None) -> bool:
    """Read, or set, generic receive offload. With it a veth polls (NAPI) and takes XDP frames."""
    command = ETHTOOL_GGRO if turn_on is None else ETHTOOL_SGRO
    return switch(control, ifname, command, bool(turn_on))


def prepare_for_xdp(ifnames: list[str]) -> None:
    """Let interfaces take XDP frames, and let their stack fill in checksums itself.

    A frame that XDP redirects or sends back carries no note that its checksum is still missing.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for ifname in ifnames:
            switch(control, ifname, ETHTOOL_STXCSUM, value=False)
            gro(control, ifname, turn_on=True)

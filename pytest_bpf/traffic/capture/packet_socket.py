"""Packet sockets: linux/if_ether.h, linux/socket.h, linux/if_packet.h, linux/filter.h."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, PACKET_IGNORE_OUTGOING = 5, 6, 10, 23
TPACKET_V3 = 2
SO_ATTACH_FILTER = 26


class Sockets(Protocol):
    """Where sockets are made: a network namespace."""

    def socket(self, family: int, kind: int, proto: int, /) -> socket.socket:
        """Make a socket in it, usable from any thread."""


class Port(Protocol):
    """The interface that is captured."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def ifindex(self) -> int:
        """Its number within its namespace."""


def attach_filter(target: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Attach a classic BPF ``program`` to ``target``: ``struct sock_fprog`` of linux/filter.h."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("HP", len(program), ctypes.addressof(buffer))
    target.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)

"""Why packets of a namespace were dropped, one by one: a BPF program at ``skb:kfree_skb``."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.btf.drop_reasons import plain_name, reason_names
from pytest_bpf.objects.loading.shipped import open_shipped
from pytest_bpf.traffic.capture.frames import CapturedFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.objects import Object
    from pytest_bpf.traffic.capture.packet_socket import Sockets

SOURCE = Path(__file__).with_name("fates.bpf.c")
SO_NETNS_COOKIE = 71
UNSPECIFIED, XDP = "NOT_SPECIFIED", "XDP"

AT_THE_END = frozenset({"packet_rcv", "tpacket_rcv", "packet_rcv_spkt", "ping_rcv"})
"""Kernel functions that free packets which have arrived."""

XDP_FUNCTIONS = (
    "veth_xdp",
    "veth_poll",
    "do_xdp_generic",
    "netif_receive_generic_xdp",
    "bpf_prog_run_generic_xdp",
)
"""Functions in which a packet without a reason was dropped by XDP; compilers add to the names."""


class Fates:
    """The program, attached: it tells of the drops of one namespace from now on. Close it.

    Raises what loading raises: `UnavailableError` without BTF or before Linux 5.17.
    """

    def __init__(self, place: Sockets, ifindex: int, compiler: str | None = None) -> None:
        self._names = reason_names()
        self._clock = time.time_ns() - time.monotonic_ns()
        self._ifindex = ifindex
        with place.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0) as any_socket:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        with open_shipped(SOURCE, compiler) as opened:
            opened.globals["namespace"] = struct.unpack("=Q", raw)[0]
            self._object: Object = opened.load()
        try:
            self._events = self._object.maps["fates"].events()
            self._object.attach()
        except BaseException:
            self._object.close()
            raise

    def read(self) -> list[Any]:
        """Return what was told since the last time."""
        return list(self._events.read())

    @property
    def untold(self) -> int:
        """Drops that were not told, because there was no room."""
        return int(self._object.globals["untold"])

    def close(self) -> None:
        """Detach and unload it."""
        self._object.close()

    def judge(self, frames: list[CapturedFrame], fates: Sequence[Any], first: str) -> None:
        """Give the frames that were dropped their reasons, and add those that never passed.

        XDP and tc drop frames before they come to the capture; of these the beginning is there.
        """
        find = _finder(frames)
        added = []
        for fate in fates:
            function = plain_name(fate.function)
            reason = self._names.get(fate.reason, f"{fate.reason:#x}")
            if not reason or function in AT_THE_END or fate.ifindex != self._ifindex:
                continue
            if reason == UNSPECIFIED and function.startswith(XDP_FUNCTIONS):
                reason = XDP
            head = bytes(fate.head)[: fate.size]
            outgoing = reason != XDP and fate.incoming != self._ifindex
            at = find(head, fate.length, outgoing)
            if at is not None:
                frames[at] = replace(frames[at], drop=reason, function=function)
                continue
            moment = fate.time + self._clock
            added.append(
                CapturedFrame(
                    head, moment, outgoing, fate.length, drop=reason, function=function, first=first
                )
            )
        if added:
            frames += added
            frames.sort(key=lambda frame: frame.time_ns)


def _finder(frames: Sequence[CapturedFrame]) -> Callable[[bytes, int, bool], int | None]:
    """Return a function that finds the next frame that begins so, which none has found yet."""
    waiting: dict[tuple[int, bool, bytes], list[int]] = {}

    def find(head: bytes, length: int, outgoing: bool) -> int | None:
        key = (length, outgoing, head)
        if key not in waiting:
            waiting[key] = [
                at
                for at, frame in enumerate(frames)
                if len(frame.data) == length
                and not frame.drop
                and frame.outgoing == outgoing
                and frame.data.startswith(head)
            ]
        return waiting[key].pop(0) if waiting[key] else None

    return find

"""The BPF filters of an interface's clsact qdisc, as the kernel lists them by rtnetlink."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
NLM_F_REQUEST, NLM_F_ACK, NLM_F_ECHO, NLM_F_DUMP = 1, 4, 8, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
"""``TC_H_MIN_INGRESS`` and ``TC_H_MIN_EGRESS`` of the clsact qdisc."""

TCA_KIND, TCA_OPTIONS, TCA_CHAIN = 1, 2, 11
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_ID = 6, 7, 8, 11
TCA_BPF_FLAG_ACT_DIRECT = 1
ETH_P_ALL = 0x0003
HEADER = struct.Struct("=IHHII")
"""``struct nlmsghdr``."""

MESSAGE = struct.Struct("=B3xiIII")
"""``struct tcmsg``: family, interface, handle, parent, info (priority and protocol)."""


class TcFilter(NamedTuple):
    """One filter: its program's id, priority, handle and chain."""

    program_id: int
    priority: int
    handle: int
    chain: int


def tc_filters(ifindex: int, direction: str) -> list[TcFilter]:
    """Return the BPF filters of an interface of this thread's namespace, in the order they run in.

    Raises `OSError`.
    """
    body = MESSAGE.pack(0, ifindex, 0, PARENTS[direction], 0)
    size = HEADER.size + len(body)
    request = HEADER.pack(size, RTM_GETTFILTER, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body
    filters = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(request)
        for answer in _answers(netlink):
            handle, info = MESSAGE.unpack_from(answer)[2], MESSAGE.unpack_from(answer)[4]
            attributes = dict(_attributes(answer[MESSAGE.size :]))
            options = dict(_attributes(attributes.get(TCA_OPTIONS, b"")))
            if attributes.get(TCA_KIND) == b"bpf\0" and TCA_BPF_ID in options:
                chain = int.from_bytes(attributes.get(TCA_CHAIN, b""), "little")
                program = struct.unpack("=I", options[TCA_BPF_ID])[0]
                filters.append(TcFilter(program, info >> 16, handle, chain))
    return filters


def add_filter(
    ifindex: int, direction: str, fd: int, name: str, *, priority: int, handle: int, chain: int
) -> TcFilter:
    """Add a direct-action filter to a chain, which libbpf has no call for; raise `OSError`.

    Returns it with the priority and the handle that the kernel chose where they are 0.
    """
    options = _attribute(TCA_BPF_FD, struct.pack("=I", fd))
    options += _attribute(TCA_BPF_NAME, name.encode() + b"\0")
    options += _attribute(TCA_BPF_FLAGS, struct.pack("=I", TCA_BPF_FLAG_ACT_DIRECT))
    body = _filter(ifindex, direction, TcFilter(0, priority, handle, chain))
    body += _attribute(TCA_OPTIONS, options)
    flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO
    chosen = TcFilter(0, priority, handle, chain)
    for answer in _change(RTM_NEWTFILTER, flags, body):
        number, info = MESSAGE.unpack_from(answer)[2], MESSAGE.unpack_from(answer)[4]
        chosen = TcFilter(0, info >> 16, number, chain)
    return chosen


def remove_filter(ifindex: int, direction: str, each: TcFilter) -> None:
    """Remove a filter; raise `OSError`."""
    for _ in _change(RTM_DELTFILTER, 0, _filter(ifindex, direction, each)):
        continue


def _filter(ifindex: int, direction: str, each: TcFilter) -> bytes:
    info = each.priority << 16 | socket.htons(ETH_P_ALL)
    message = MESSAGE.pack(0, ifindex, each.handle, PARENTS[direction], info)
    chain = _attribute(TCA_CHAIN, struct.pack("=I", each.chain))
    return message + _attribute(TCA_KIND, b"bpf\0") + chain


def _change(kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """Send a request, and yield what the kernel says of the filter; raise `OSError`."""
    request = HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(request + body)
        while True:
            data = netlink.recv(1 << 16)
            while data:
                size, answer, *_ = HEADER.unpack_from(data)
                if answer == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data, HEADER.size)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield data[HEADER.size : size]
                data = data[(size + 3) & ~3 :]


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _answers(netlink: socket.socket) -> Iterator[bytes]:
    """Yield what follows the header of each message of a dump."""
    while True:
        data = netlink.recv(1 << 16)
        while data:
            size, kind, *_ = HEADER.unpack_from(data)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", data, HEADER.size)[0]
                raise OSError(code, "the kernel does not list filters")
            if kind == RTM_NEWTFILTER:
                yield data[HEADER.size : size]
            data = data[(size + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:size]
        data = data[(size + 3) & ~3 :]

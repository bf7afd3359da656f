"""rtnetlink in one round trip: requests sent together, each error checked, news waited for."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.errors import PlaceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NLMSG_ERROR, RTM_NEWLINK, RTM_NEWROUTE = 2, 16, 24
NLM_F_ACK, NLM_F_CAPPED, NLM_F_ACK_TLVS = 4, 0x100, 0x200
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
SO_RCVBUFFORCE = 33
RTMGRP_LINK, RTMGRP_IPV6_ROUTE = 1, 0x400
IFLA_OPERSTATE, IF_OPER_UP = 16, 6
RTM_TYPE, RTN_LOCAL, RTA_DST = 7, 2, 1
NLMSGERR_ATTR_MSG = 1

HEADER = struct.Struct("=IHHII")
"""``struct nlmsghdr``: length, type, flags, sequence number, port."""

PATIENCE = 10.0
"""Seconds to wait for an interface or an address to become usable."""


class Request(NamedTuple):
    """An encoded message, and what it asks for in words: "the address 192.0.2.1/24 on veth0"."""

    data: bytes
    description: str


class RefusedError(OSError):
    """The kernel refused a request; ``strerror`` is its reason, ``request`` what was asked."""

    def __init__(self, code: int, reason: str, request: Request) -> None:
        super().__init__(code, reason)
        self.request = request


class RouteSocket:
    """A NETLINK_ROUTE socket made inside a namespace, usable from any thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV6_ROUTE))
        self._up: set[int] = set()
        self._usable: set[bytes] = set()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, requests: Sequence[Request]) -> None:
        """Send requests as one batch and wait until the kernel has done them all, in order.

        Raises `RefusedError` for the first that the kernel refused; it has tried the others too.
        """
        if not requests:
            return
        self._socket.settimeout(PATIENCE)
        self._socket.send(_batch(requests))
        refused: RefusedError | None = None
        for number, code, reason in self._answers(len(requests)):
            if code and refused is None:
                refused = RefusedError(code, reason, requests[number])
        if refused:
            raise refused

    def _answers(self, count: int) -> Iterator[tuple[int, int, str]]:
        number = -1
        while number < count - 1:
            for kind, flags, number_in_batch, body in messages(self._socket.recv(1 << 18)):
                if kind == NLMSG_ERROR:
                    number = number_in_batch
                    code = -struct.unpack_from("=i", body)[0]
                    yield number, code, _reason(code, flags, body)
                else:
                    self._note(kind, body)

    def wait(self, *, up: Iterable[int] = (), addresses: Iterable[bytes] = ()) -> None:
        """Wait until interfaces (indexes) are up and IPv6 addresses (16 bytes) usable.

        An address is once the kernel has looked at it and made its local route
        (``addrconf_dad_completed``). The interfaces have to be asked for after they were set up.
        Raises `PlaceError` after `PATIENCE` seconds.
        """
        need_up, need_addresses = set(up), set(addresses)
        deadline = time.monotonic() + PATIENCE
        while not (need_up <= self._up and need_addresses <= self._usable):
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                received = self._socket.recv(1 << 18)
            except TimeoutError:
                raise PlaceError(
                    f"after {PATIENCE:g} s {len(need_up - self._up)} interfaces were not up and "
                    f"{len(need_addresses - self._usable)} IPv6 addresses not usable"
                ) from None
            for kind, _, _, body in messages(received):
                self._note(kind, body)

    def _note(self, kind: int, body: bytes) -> None:
        """Remember what a message says about an interface or an address."""
        if kind == RTM_NEWLINK:
            (index,) = struct.unpack_from("=4xi", body)
            is_up = _attribute(body, 16, IFLA_OPERSTATE) == bytes([IF_OPER_UP])
            (self._up.add if is_up else self._up.discard)(index)
        elif kind == RTM_NEWROUTE and body[RTM_TYPE] == RTN_LOCAL:
            self._usable.add(_attribute(body, 12, RTA_DST))


def _batch(requests: Sequence[Request]) -> bytearray:
    """Join messages, numbered from 0; only the last is acknowledged, errors always are."""
    batch = bytearray()
    for number, request in enumerate(requests):
        length, kind, flags, _, _ = HEADER.unpack_from(request.data)
        if number == len(requests) - 1:
            flags |= NLM_F_ACK
        batch += HEADER.pack(length, kind, flags, number, 0)
        batch += request.data[HEADER.size :]
        batch += bytes(-len(batch) % 4)
    return batch


def messages(received: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Split what was received into (type, flags, sequence number, body)."""
    offset = 0
    while offset + HEADER.size <= len(received):
        length, kind, flags, number, _ = HEADER.unpack_from(received, offset)
        yield kind, flags, number, received[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    """Return the attributes (``struct nlattr``) that start at ``offset``, by type."""
    return dict(_each_attribute(body, offset))


def _attribute(body: bytes, offset: int, attribute: int) -> bytes:
    """Return the first attribute of one type, or nothing, without looking at those after it."""
    return next((value for kind, value in _each_attribute(body, offset) if kind == attribute), b"")


def _each_attribute(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        yield kind & 0x3FFF, body[offset + 4 : offset + length]
        offset += max(4, (length + 3) & ~3)


def _reason(code: int, flags: int, body: bytes) -> str:
    """Return the kernel's own sentence about an error (``NLMSGERR_ATTR_MSG``), or errno's."""
    if flags & NLM_F_ACK_TLVS and flags & NLM_F_CAPPED:
        message = _attribute(body, 4 + HEADER.size, NLMSGERR_ATTR_MSG)
        if message:
            return message.rstrip(b"\0").decode(errors="replace")
    return os.strerror(code)

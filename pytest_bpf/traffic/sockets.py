"""Sockets of either end, made in their endpoint and cgroup, with the options asked for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pytest_bpf.errors import StimulusError
from pytest_bpf.traffic.result import check_range

if TYPE_CHECKING:
    from pytest_bpf.traffic.endpoint import Endpoint, Place

LOOPBACK = {False: "127.0.0.1", True: "::1"}
"""Where an endpoint reaches itself, by ``ipv6``."""


def destination(to: Endpoint | None, *, ipv6: bool) -> str:
    """Return where traffic to ``to`` goes, or to loopback without one."""
    if not isinstance(ipv6, int) or ipv6 not in LOOPBACK:
        raise StimulusError(f"ipv6 is {ipv6!r}; it must be True or False")
    if to is None:
        return LOOPBACK[ipv6]
    return str(to.ipv6 if ipv6 else to.ipv4)


def open_receiver(
    endpoint: Endpoint,
    kind: int,
    address: str,
    port: int,
    *,
    ipv6: bool = False,
    cgroup: Place | None = None,
) -> socket.socket:
    """Return a socket of ``endpoint`` bound to ``address`` and, for TCP, listening."""
    check_range("port", port, 0, 65535)
    bound = _make_socket(endpoint, kind, 0, ipv6=ipv6, cgroup=cgroup)
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        if kind == socket.SOCK_STREAM:
            bound.listen(socket.SOMAXCONN)
    except OSError as error:
        bound.close()
        raise StimulusError(
            f"{endpoint.name}: port {port} of {address} cannot be opened: {error.strerror}"
        ) from error
    return bound


def open_sender(
    endpoint: Endpoint,
    kind: int,
    *,
    protocol: int = 0,
    src_port: int = 0,
    ttl: int | None = None,
    tos: int | None = None,
    ipv6: bool = False,
    cgroup: Place | None = None,
) -> socket.socket:
    """Return a socket of ``endpoint`` that sends from ``src_port`` with this TTL and TOS."""
    check_range("src_port", src_port, 0, 65535)
    if ttl is not None:
        check_range("ttl", ttl, 1, 255)
    if tos is not None:
        check_range("tos", tos, 0, 255)
    level = socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP
    sender = _make_socket(endpoint, kind, protocol, ipv6=ipv6, cgroup=cgroup)
    try:
        if ttl is not None:
            sender.setsockopt(level, socket.IPV6_UNICAST_HOPS if ipv6 else socket.IP_TTL, ttl)
        if tos is not None:
            sender.setsockopt(level, socket.IPV6_TCLASS if ipv6 else socket.IP_TOS, tos)
        if src_port:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sender.bind(("", src_port))
    except OSError as error:
        sender.close()
        raise StimulusError(
            f"{endpoint.name}: nothing can be sent from port {src_port}: {error.strerror}"
        ) from error
    return sender


def _make_socket(
    endpoint: Endpoint, kind: int, protocol: int, *, ipv6: bool, cgroup: Place | None
) -> socket.socket:
    """Make a socket; its cgroup is the one this process is in at this moment."""
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    if cgroup is None:
        return endpoint.socket(family, kind, protocol)
    return cgroup.run(endpoint.socket, family, kind, protocol)

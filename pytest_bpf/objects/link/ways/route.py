"""Lightweight tunnels: programs on a route, which run for the packets that take it."""

from __future__ import annotations

import errno
import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_bpf.errors import AttachError, BpfError, UnavailableError
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.targets import target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

HOOKS = {"lwt_in": "in", "lwt_out": "out", "lwt_xmit": "xmit"}
"""What pyroute2 calls the hook of each type (``LWT_BPF_IN`` and so on)."""

KEPT = {"RTA_OIF": "oif", "RTA_GATEWAY": "gateway", "RTA_PRIORITY": "priority"}
KEPT |= {"RTA_PREFSRC": "prefsrc", "RTA_TABLE": "table"}
"""What a route is made anew with, by netlink's name and pyroute2's."""


UNICAST = 1
"""``RTN_UNICAST``."""


@runtime_checkable
class RoutedNamespace(Protocol):
    """A network namespace whose routes pyroute2 can change."""

    ipr: Any


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Put the program on the route to a network; other attributes of the route stay."""
    if not isinstance(options.netns, RoutedNamespace):
        raise AttachError(
            f"program {program.name!r} ({program.type}) takes netns=, the namespace of the route, "
            f"not {target_name(options.netns)}"
        )
    try:
        network = ipaddress.ip_network(target)
    except ValueError:
        raise AttachError(
            f"program {program.name!r} ({program.type}) attaches to the route to a network, such "
            f"as '192.0.2.0/24', not to {target_name(target)}"
        ) from None
    route = _route(program, network, options.netns)
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - netns.ipr has it by now

    encap = {"type": "bpf", HOOKS[program.type]: {"fd": program.fd, "name": program.name}}
    try:
        options.netns.ipr.route("replace", **route, encap=encap)
    except NetlinkError as error:
        if error.code == errno.EOPNOTSUPP:
            raise UnavailableError("the kernel has no CONFIG_LWTUNNEL_BPF") from None
        raise OSError(error.code, str(error)) from None

    def undo() -> None:
        with suppress(NetlinkError, OSError, BpfError):  # the namespace or interface is gone
            options.netns.ipr.route("replace", **route)

    return Link(program.name, f"the route to {network}", undo)


def _route(
    program: Attachable, network: ipaddress.IPv4Network | ipaddress.IPv6Network, netns: Any
) -> dict[str, Any]:
    """Return the arguments that make the route to ``network`` as it is."""
    family = 2 if network.version == 4 else 10
    start, length = str(network.network_address), network.prefixlen
    for route in netns.ipr.get_routes(family=family):
        attributes = dict(route["attrs"])
        destination = attributes.get("RTA_DST", "" if length else start)  # a default route has none
        if (destination, route["dst_len"], route["type"]) == (start, length, UNICAST):
            break
    else:
        raise AttachError(
            f"program {program.name!r} ({program.type}): {target_name(netns)} has no route to "
            f"{network}; add one by netns.ipr.route('add', ...)"
        )
    kept = {name: attributes[key] for key, name in KEPT.items() if key in attributes}
    return {"dst": str(network), "family": family, "scope": route["scope"], **kept}

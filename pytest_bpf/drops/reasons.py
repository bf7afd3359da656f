"""Dropped packets by the kernel's reason: a BPF program counts them at ``skb:kfree_skb``."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.drops.counters import netns_cookie
from pytest_bpf.drops.counts import XDP
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernel.btf import vmlinux
from pytest_bpf.kernel.btf.drop_reasons import plain_name, reason_names
from pytest_bpf.objects.loading.shipped import open_shipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

    from pytest_bpf.objects import Object

SOURCE = Path(__file__).with_name("reasons.bpf.c")
UNSPECIFIED = "NOT_SPECIFIED"

GENERIC_XDP = frozenset({"do_xdp_generic", "netif_receive_generic_xdp", "bpf_prog_run_generic_xdp"})
"""The kernel functions in which generic XDP drops; which one is the compiler's choice."""

OUR_REASONS = {
    0xFFFF0001: "XDP_DEVMAP",
    0xFFFF0002: "XDP_CPUMAP",
    0xFFFF0003: "TC_STOLEN",
    0xFFFF0004: "DUMMY_DEVICE",
}
"""Those that ``reasons.bpf.c`` gives to frames of native XDP, and to what tc or a dummy takes."""

NATIVE_XDP = frozenset({"veth_xdp_rcv_skb", "veth_xdp_rcv", "veth_poll"})
"""Kernel functions in which native XDP drops packets on a veth; the driver counts these."""

CPUMAP_XDP = frozenset({"cpu_map_kthread_run", "cpu_map_bpf_prog_run", "cpu_map_bpf_prog_run_skb"})
"""Those that free what a cpumap's program drops (6.1); the tracepoint of the cpumap counts it."""

DELIVERY_FUNCTIONS = frozenset(
    {
        *("packet_rcv", "tpacket_rcv", "packet_rcv_spkt"),  # the copy of a packet socket
        "ping_rcv",  # an echo reply; a raw socket that waits for it has got a copy
        *("skb_queue_purge", "skb_queue_purge_reason"),  # unread, in a socket that is closed
    }
)
"""Kernel functions that free packets at the end of their way; these are no drops."""

HANDLED = frozenset(
    {
        ("icmpv6_rcv", UNSPECIFIED),  # each message that it has answered, or told to a socket
        ("icmp_rcv", "NO_SOCKET"),  # an echo reply, as above
        ("icmpv6_rcv", "NO_SOCKET"),
    }
)
"""Function and reason by which older kernels (6.1) free messages that have arrived."""


class ReasonCounter:
    """The program, attached; it counts inside of `counting`, in every namespace but our own.

    Close it, or use ``with``. Where it cannot be attached nothing is counted, and ``unavailable``
    is the reason. ``compiler`` is as for `compile_source`. Keep one: loading takes 30 ms,
    attaching again after a detach up to 15 ms (the kernel waits for RCU), while a new count starts
    in 0.2 ms.
    """

    def __init__(self, compiler: str | None = None) -> None:
        self._refusal = ""
        self._object: Object | None = None
        self._users = 0
        try:
            self._object = _load(compiler)
        except UnavailableError as error:
            self._refusal = str(error)
        except BpfError as error:
            self._refusal = f"this kernel refuses the program that counts them: {error}"

    @property
    def unavailable(self) -> str:
        """Why figures are missing; empty when all are there."""
        if self._object is None or not self._object.globals["uncounted"]:
            return self._refusal
        entries = self._object.maps["drops"].max_entries
        return (
            f"packets were dropped in more than {entries} ways (namespace, reason, place in the "
            "kernel), and some are missing; look at a shorter time"
        )

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count, from 0 unless somebody counts already."""
        if self._object is None:
            yield
            return
        if not self._users:
            self._object.maps["drops"].clear()
            self._object.maps["waiting"].clear()
            self._object.globals["uncounted"] = 0
            self._object.globals["counting"] = True
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._object.globals["counting"] = self._users > 0

    def read(self, namespaces: Mapping[int, str]) -> dict[tuple[str, str, str], int]:
        """Return packets by (namespace, reason, kernel function), of namespaces by their cookies.

        Drops by generic XDP have the reason ``"XDP"``; those by native XDP, which the driver
        counts, are left out, and so is what is freed in `DELIVERY_FUNCTIONS`.
        """
        packets: Counter[tuple[str, str, str]] = Counter()
        if self._object is None:
            return packets
        names = {**reason_names(), **OUR_REASONS}
        for drop, value in self._object.maps["drops"].items():
            function = plain_name(value.function)
            reason = names.get(drop.reason, f"{drop.reason:#x}")
            if drop.namespace not in namespaces or not reason or function in DELIVERY_FUNCTIONS:
                continue
            if (function, reason) in HANDLED:
                continue
            if reason in {UNSPECIFIED, XDP} and function in NATIVE_XDP | CPUMAP_XDP:
                continue
            if reason == UNSPECIFIED and function in GENERIC_XDP:
                reason = XDP
            packets[namespaces[drop.namespace], reason, function] += value.packets
        for peer in self._object.maps["waiting"].values():
            if peer.namespace in namespaces:
                packets[namespaces[peer.namespace], "XDP_TX", "xdp_bulk_tx"] += peer.frames
        return dict(packets)

    def close(self) -> None:
        """Unload the program; a second time does nothing."""
        if self._object is not None:
            self._object.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load(compiler: str | None) -> Object:
    """Load and attach the program; raises `UnavailableError` for what is missing."""
    reason_names()
    home = netns_cookie()
    with open_shipped(SOURCE, compiler) as open_object:
        open_object.globals["home"] = home
        open_object.globals["has_place"] = vmlinux().tracepoint_arguments("consume_skb") > 1
        open_object.globals["has_rx_sk"] = vmlinux().tracepoint_arguments("kfree_skb") > 3
        loaded = open_object.load()
    try:
        loaded.attach()
    except BaseException:
        loaded.close()
        raise
    return loaded

"""Counts of dropped packets, as a value that can be compared, subtracted and printed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pytest_bpf.errors import UnavailableError, UnknownNameError, near_matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_bpf.netns import Namespace

XDP = "XDP"
"""The drop reason of XDP programs (``SKB_DROP_REASON_XDP``)."""

NATIVE_REASONS = {
    "xdp_drops": XDP,
    "xdp_tx_errors": "XDP_TX",
    "drops": "XDP_REDIRECT",
}
"""The reasons for a driver's counters of frames that native XDP lost, ``rx_queue_N_<name>``.

A program dropped the frame; ``XDP_TX`` that the driver could not transmit; a redirect to nowhere.
"""

OWN_REASONS = ("XDP_TX", "XDP_REDIRECT", "XDP_DEVMAP", "XDP_CPUMAP", "TC_STOLEN", "DUMMY_DEVICE")
"""Reasons of ours, for which the kernel has no name."""

TC_REASONS = frozenset({"TC_INGRESS", "TC_EGRESS"})
"""The kernel's reasons for ``TC_ACT_SHOT``."""

RX_COUNTER = re.compile(r"rx_queue_\d+_(\w+)")

K = TypeVar("K", bound="tuple[str, ...]")
V = TypeVar("V", int, "InterfaceDrops", "QdiscDrops")


class InterfaceDrops(NamedTuple):
    """An interface's own counters, in packets (``struct rtnl_link_stats64``)."""

    rx_dropped: int = 0
    tx_dropped: int = 0
    rx_errors: int = 0
    tx_errors: int = 0


class QdiscDrops(NamedTuple):
    """A queue discipline's counters (``struct gnet_stats_queue``).

    ``drops`` in packets; ``overlimits`` is how often it delayed or dropped one. The drops of
    a ``clsact`` are those of its programs and filters (``TC_ACT_SHOT``).
    """

    drops: int = 0
    overlimits: int = 0


class Reasons(dict[str, int]):
    """Packets by drop reason; a reason of this kernel that did not occur is 0."""

    def __missing__(self, reason: str) -> int:
        from pytest_bpf.kernel.btf.drop_reasons import reason_names  # noqa: PLC0415 (it needs libbpf)

        names = {*reason_names().values(), *OWN_REASONS}
        if reason not in names:
            raise UnknownNameError(
                f"this kernel has no drop reason {reason!r}{near_matches(reason, names)}"
            )
        return 0


@dataclass(frozen=True, repr=False)
class DropCounts:
    """Dropped packets up to a moment; subtract an earlier value to get the packets in between.

    * ``interfaces`` by (namespace, interface), ``lo`` included: `InterfaceDrops`.
    * ``qdiscs`` by (namespace, interface, kind), ``("right", "veth0", "clsact")``: `QdiscDrops`.
    * ``drivers`` by (namespace, interface, name): the drivers' counters of drops and errors, as
      ``ethtool -S`` shows them.
    * ``packets`` by (namespace, reason, kernel function): the tracepoint ``skb:kfree_skb``.

    ``counts["right"]``, or ``counts[namespace]``, is one namespace's share. Namespaces go by their
    names, the second of one name is ``"right#2"``.
    """

    interfaces: Mapping[tuple[str, str], InterfaceDrops] = field(default_factory=dict)
    qdiscs: Mapping[tuple[str, str, str], QdiscDrops] = field(default_factory=dict)
    drivers: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    packets: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    generic_xdp: frozenset[tuple[str, str]] = frozenset()
    namespaces: Mapping[str, int] = field(default_factory=dict)
    unavailable: str = ""

    @property
    def xdp(self) -> int:
        """Packets dropped by XDP, native and generic: ``XDP_DROP``, ``XDP_ABORTED``, no verdict.

        Native: the driver's counters (veth's ``rx_queue_N_xdp_drops``). Generic: the packets that
        the kernel frees in ``do_xdp_generic``; where those cannot be observed and an interface has
        a generic program attached, this raises `UnavailableError`.
        """
        if self.unavailable and self.generic_xdp:
            raise UnavailableError(f"what generic XDP drops is not counted: {self.unavailable}")
        return self._native()[XDP] + sum(n for (_, why, _), n in self.packets.items() if why == XDP)

    @property
    def tc(self) -> int:
        """Packets dropped by tc programs and filters at ingress and egress (``TC_ACT_SHOT``).

        By drop reason (``TC_INGRESS``, ``TC_EGRESS``), or by the counters of ``clsact`` and
        ``ingress`` where the kernel gives no such reason; those go when the qdisc is removed. What
        a program took (``TC_ACT_STOLEN``, ``TC_ACT_QUEUED``, ``TC_ACT_TRAP``) is not among them:
        its reason is ``TC_STOLEN``.
        """
        reasons = sum(n for (_, why, _), n in self.packets.items() if why in TC_REASONS)
        kinds = {"clsact", "ingress"}
        return max(reasons, sum(q.drops for (*_, kind), q in self.qdiscs.items() if kind in kinds))

    @property
    def reasons(self) -> Reasons:
        """Packets by the kernel's reason, without ``SKB_DROP_REASON_``: ``{"NO_SOCKET": 10}``.

        ``"XDP"`` is the same as `xdp`, whatever this kernel calls them (6.18: NOT_SPECIFIED). Six
        reasons are not the kernel's. Four are of native XDP: ``"XDP_TX"``, the driver could not
        transmit the frame, or it waits at a veth's peer that nothing wakes up (it has no native
        program); ``"XDP_REDIRECT"``, the redirect failed at once (no such interface, no
        such entry, too large); ``"XDP_DEVMAP"``, the interface of the redirect did not transmit the
        frame (on a veth, its peer has no NAPI), or a program of the devmap dropped it;
        ``"XDP_CPUMAP"``, the queue of the CPU was full, or a program of the cpumap dropped it.
        One is of tc: ``"TC_STOLEN"``, a program took the packet and it went no further. One is of
        dummy interfaces, ``"DUMMY_DEVICE"``: they take everything.
        Raises `UnavailableError` where the kernel does not tell reasons (Linux 5.17, BTF and a
        compiler are needed).
        """
        if self.unavailable:
            raise UnavailableError(f"drop reasons are not counted: {self.unavailable}")
        counts = self._native()
        counts[XDP] = self.xdp
        for (_, reason, _), packets in self.packets.items():
            if reason != XDP:
                counts[reason] += packets
        return Reasons({reason: n for reason, n in counts.most_common() if n})

    @property
    def functions(self) -> dict[str, int]:
        """Packets by the kernel function that dropped them; native XDP is not among them.

        Raises `UnavailableError` as `reasons` does.
        """
        if self.unavailable:
            raise UnavailableError(f"dropping functions are not counted: {self.unavailable}")
        counts: Counter[str] = Counter()
        for (*_, function), packets in self.packets.items():
            counts[function] += packets
        return {function: packets for function, packets in counts.most_common() if packets}

    @property
    def total(self) -> int:
        """All packets dropped, each once: the sum of `reasons`.

        Packets that a qdisc or tc drops have a reason, and so are not added from ``qdiscs`` again.
        The counters of ``interfaces`` are not part of it: most of what they count has a reason
        too. A large packet (GSO, GRO) counts as one. Not counted is what has reached its end:
        copies that a packet socket had no room for, echo replies that only raw sockets take, what
        is unread in a closed socket, and a wrong checksum that UDP sees when it is read. Raises
        `UnavailableError` as `reasons` does.
        """
        return sum(self.reasons.values())

    def __getitem__(self, namespace: str | Namespace) -> DropCounts:
        if isinstance(namespace, str) or not hasattr(namespace, "inode"):
            name = str(namespace)
        else:
            name = self._name_of(namespace)
        if name not in self.namespaces:
            raise UnknownNameError(
                f"drops are not counted in {name!r}{near_matches(name, self.namespaces)}"
            )
        return replace(
            self,
            interfaces=_in_namespace(name, self.interfaces),
            qdiscs=_in_namespace(name, self.qdiscs),
            drivers=_in_namespace(name, self.drivers),
            packets=_in_namespace(name, self.packets),
            generic_xdp=frozenset(where for where in self.generic_xdp if where[0] == name),
            namespaces={name: self.namespaces[name]},
        )

    def __sub__(self, earlier: DropCounts) -> DropCounts:
        return replace(
            self,
            interfaces=_differences(self.interfaces, earlier.interfaces),
            qdiscs=_differences(self.qdiscs, earlier.qdiscs),
            drivers=_differences(self.drivers, earlier.drivers),
            packets=_differences(self.packets, earlier.packets),
            unavailable=self.unavailable or earlier.unavailable,
        )

    def __repr__(self) -> str:
        return f"<DropCounts {self}>"

    def __str__(self) -> str:
        if not self.unavailable:
            listed = [f"{reason} {n}" for reason, n in self.reasons.items()]
            parts = [f"total {self.total}", *([f"({', '.join(listed)})"] if listed else [])]
            shown = [" ".join(parts), *self._counters()]
        else:
            shown = [*self._counters(), "reasons not counted"]
        return "; ".join(shown)

    def _native(self) -> Counter[str]:
        """Return the frames that native XDP lost by the drivers' counters, by reason."""
        counts: Counter[str] = Counter()
        for (*_, name), frames in self.drivers.items():
            match = RX_COUNTER.fullmatch(name)
            if match and match[1] in NATIVE_REASONS:
                counts[NATIVE_REASONS[match[1]]] += frames
        return counts

    def _counters(self) -> Iterator[str]:
        """Yield the counters that are not zero."""
        for (namespace, interface), counters in self.interfaces.items():
            yield from (
                f"{namespace}/{interface} {name} {n}" for name, n in counters._asdict().items() if n
            )
        for (namespace, interface, kind), qdisc in self.qdiscs.items():
            yield from (
                f"{namespace}/{interface} {kind} {name} {n}"
                for name, n in qdisc._asdict().items()
                if n
            )
        for (namespace, interface, name), packets in self.drivers.items():
            if packets:
                yield f"{namespace}/{interface} {name} {packets}"

    def _name_of(self, namespace: Namespace) -> str:
        """Return the label of a namespace; of two with one inode the later one is open."""
        names = [name for name, inode in self.namespaces.items() if inode == namespace.inode]
        return names[-1] if names else namespace.name


def _in_namespace(namespace: str, rows: Mapping[K, V]) -> dict[K, V]:
    return {key: value for key, value in rows.items() if key[0] == namespace}


def _differences(later: Mapping[K, V], earlier: Mapping[K, V]) -> dict[K, V]:
    return {key: _difference(value, earlier.get(key)) for key, value in later.items()}


def _difference(later: Any, earlier: Any) -> Any:
    """Subtract numbers, or tuples of them; counters that went back were made anew, from 0."""
    if earlier is None:
        return later
    if isinstance(later, int):
        return later - earlier if later >= earlier else later
    if any(a < b for a, b in zip(later, earlier, strict=True)):
        return later
    return type(later)(*(a - b for a, b in zip(later, earlier, strict=True)))

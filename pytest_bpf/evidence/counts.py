"""What was dropped in a span, as a value that can be compared, subtracted and printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pytest_bpf.errors import UnavailableError, UnknownNameError, near_matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_bpf.places import Namespace

XDP = "XDP"
"""What the kernel calls a drop by XDP (``SKB_DROP_REASON_XDP``), where it does."""

NATIVE_XDP = "xdp_drops"
"""How a driver's counters of packets dropped by XDP end: ``rx_queue_0_xdp_drops``."""

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

    ``drops`` in packets; ``overlimits`` is how often it held one back or dropped it. The drops of
    a ``clsact`` are those of its programs and filters (``TC_ACT_SHOT``).
    """

    drops: int = 0
    overlimits: int = 0


class Reasons(dict[str, int]):
    """Packets by drop reason, of those that occurred; any other that the kernel has is 0."""

    def __missing__(self, reason: str) -> int:
        from pytest_bpf.kernel.drop_reasons import reason_names  # noqa: PLC0415 (it needs libbpf)

        known = reason_names().values()
        if reason not in known:
            raise UnknownNameError(
                f"this kernel has no drop reason {reason!r}{near_matches(reason, known)}"
            )
        return 0


@dataclass(frozen=True, repr=False)
class DropCounts:
    """What was dropped up to a moment; a later one minus an earlier one is what lies between.

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
        native = sum(n for (_, _, name), n in self.drivers.items() if name.endswith(NATIVE_XDP))
        if self.unavailable and self.generic_xdp:
            raise UnavailableError(f"what generic XDP drops is not counted: {self.unavailable}")
        return native + sum(n for (_, why, _), n in self.packets.items() if why == XDP)

    @property
    def tc(self) -> int:
        """Packets dropped by tc programs and filters at ingress and egress (``TC_ACT_SHOT``).

        By drop reason (``TC_INGRESS``, ``TC_EGRESS``), or by the counters of ``clsact`` and
        ``ingress`` where the kernel gives no such reason; those go when the qdisc is removed.
        """
        reasons = sum(n for (_, why, _), n in self.packets.items() if why.startswith("TC_"))
        kinds = {"clsact", "ingress"}
        return max(reasons, sum(q.drops for (*_, kind), q in self.qdiscs.items() if kind in kinds))

    @property
    def reasons(self) -> Reasons:
        """Packets by the kernel's reason, without ``SKB_DROP_REASON_``: ``{"NO_SOCKET": 10}``.

        ``"XDP"`` is the same as `xdp`, whatever this kernel says of them (6.18 says NOT_SPECIFIED).
        Raises `UnavailableError` where the kernel does not tell reasons (Linux 5.17, BTF and a
        compiler are needed).
        """
        if self.unavailable:
            raise UnavailableError(f"drop reasons are not counted: {self.unavailable}")
        found: Counter[str] = Counter({XDP: self.xdp})
        for (_, reason, _), packets in self.packets.items():
            if reason != XDP:
                found[reason] += packets
        return Reasons({reason: n for reason, n in found.most_common() if n})

    @property
    def functions(self) -> dict[str, int]:
        """Packets by the kernel function that dropped them; native XDP is not among them.

        Raises `UnavailableError` as `reasons` does.
        """
        if self.unavailable:
            raise UnavailableError(f"dropping functions are not counted: {self.unavailable}")
        found: Counter[str] = Counter()
        for (*_, function), packets in self.packets.items():
            found[function] += packets
        return {function: packets for function, packets in found.most_common() if packets}

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
        name = namespace if isinstance(namespace, str) else self._name_of(namespace)
        if name not in self.namespaces:
            raise UnknownNameError(
                f"drops are not counted in {name!r}{near_matches(name, self.namespaces)}"
            )
        return replace(
            self,
            interfaces=_of(name, self.interfaces),
            qdiscs=_of(name, self.qdiscs),
            drivers=_of(name, self.drivers),
            packets=_of(name, self.packets),
            generic_xdp=frozenset(where for where in self.generic_xdp if where[0] == name),
            namespaces={name: self.namespaces[name]},
        )

    def __sub__(self, earlier: DropCounts) -> DropCounts:
        return replace(
            self,
            interfaces=_since(self.interfaces, earlier.interfaces),
            qdiscs=_since(self.qdiscs, earlier.qdiscs),
            drivers=_since(self.drivers, earlier.drivers),
            packets=_since(self.packets, earlier.packets),
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

    def _counters(self) -> Iterator[str]:
        """Yield the counters that are not zero."""
        for (namespace, interface), seen in self.interfaces.items():
            yield from (
                f"{namespace}/{interface} {name} {n}" for name, n in seen._asdict().items() if n
            )
        for (namespace, interface, kind), held in self.qdiscs.items():
            yield from (
                f"{namespace}/{interface} {kind} {name} {n}"
                for name, n in held._asdict().items()
                if n
            )
        for (namespace, interface, name), packets in self.drivers.items():
            if packets:
                yield f"{namespace}/{interface} {name} {packets}"

    def _name_of(self, namespace: Namespace) -> str:
        """Return what a namespace is called here; of two with one inode the later one lives."""
        found = [name for name, inode in self.namespaces.items() if inode == namespace.inode]
        return found[-1] if found else namespace.name


def _of(namespace: str, rows: Mapping[K, V]) -> dict[K, V]:
    return {key: value for key, value in rows.items() if key[0] == namespace}


def _since(later: Mapping[K, V], earlier: Mapping[K, V]) -> dict[K, V]:
    return {key: _minus(value, earlier.get(key)) for key, value in later.items()}


def _minus(later: Any, earlier: Any) -> Any:
    """Subtract numbers, or tuples of them; counters that went back were made anew, from 0."""
    if earlier is None:
        return later
    if isinstance(later, int):
        return later - earlier if later >= earlier else later
    if any(a < b for a, b in zip(later, earlier, strict=True)):
        return later
    return type(later)(*(a - b for a, b in zip(later, earlier, strict=True)))

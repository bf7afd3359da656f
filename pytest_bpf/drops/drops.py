"""Counts the packets that network namespaces drop from one moment to another."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_bpf.drops.counters import netns_cookie, read_counters
from pytest_bpf.drops.counts import DropCounts, InterfaceDrops, QdiscDrops, Reasons
from pytest_bpf.drops.reasons import ReasonCounter
from pytest_bpf.errors import BpfError, PlaceError
from pytest_bpf.errors.arguments import checked_methods

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typing_extensions import Self

    from pytest_bpf.netns import Namespace


class _LiveCounts:
    """Counts since the start, read anew by each access until the end; see `DropCounts`."""

    _before: DropCounts | None = None
    _after: DropCounts | None = None

    def _read(self) -> DropCounts:
        raise NotImplementedError

    def snapshot(self) -> DropCounts:
        """Return the counts up to now, as a value that stays."""
        if self._before is None:
            raise BpfError("counting has not started; use 'with' to start it")
        return (self._after or self._read()) - self._before

    @property
    def xdp(self) -> int:
        """Packets dropped by XDP, native and generic; see `DropCounts.xdp`."""
        return self.snapshot().xdp

    @property
    def tc(self) -> int:
        """Packets dropped by tc programs and filters; see `DropCounts.tc`."""
        return self.snapshot().tc

    @property
    def total(self) -> int:
        """All packets dropped, each once; see `DropCounts.total`."""
        return self.snapshot().total

    @property
    def reasons(self) -> Reasons:
        """Packets by the kernel's reason, ``{"NO_SOCKET": 10}``; see `DropCounts.reasons`."""
        return self.snapshot().reasons

    @property
    def functions(self) -> Mapping[str, int]:
        """Packets by the kernel function that dropped them; see `DropCounts.functions`."""
        return self.snapshot().functions

    @property
    def interfaces(self) -> Mapping[tuple[str, str], InterfaceDrops]:
        """The interfaces' own counters by (namespace, interface)."""
        return self.snapshot().interfaces

    @property
    def qdiscs(self) -> Mapping[tuple[str, str, str], QdiscDrops]:
        """The queue disciplines' counters by (namespace, interface, kind)."""
        return self.snapshot().qdiscs

    @property
    def drivers(self) -> Mapping[tuple[str, str, str], int]:
        """The drivers' counters of drops and errors by (namespace, interface, name)."""
        return self.snapshot().drivers

    def __getitem__(self, namespace: str | Namespace) -> DropCounts:
        return self.snapshot()[namespace]

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name}, not started>" if self._before is None else f"<{name} {self.snapshot()}>"


class DropSpan(_LiveCounts):
    """A part of the time that a `Drops` covers; its counts stay as they were at its end."""

    def __init__(self, drops: Drops) -> None:
        self._drops = drops
        self._before = self._read()

    def _read(self) -> DropCounts:
        return self._drops._read()  # noqa: SLF001 (a span is a part of Drops)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._after = self._read()


@checked_methods
class Drops(_LiveCounts):
    """Counts what is dropped in ``namespaces``, from the start of the ``with`` to its end.

    >>> with Drops([left, right]) as drops:  # doctest: +SKIP
    ...     left.traffic.udp(to=right, port=53, count=1000)
    ...     assert drops.xdp == 1000

    A namespace may join the sequence later; it is counted from then on. A namespace that is closed
    keeps its packets by reason and loses its other counters. ``reasons`` is the program that counts
    packets by reason; without it, one is loaded here (30 ms). Where it cannot be loaded, `reasons`,
    `functions` and `total` raise `UnavailableError`, and the rest works.
    """

    def __init__(
        self, namespaces: Iterable[Namespace], reasons: ReasonCounter | None = None
    ) -> None:
        self._namespaces = namespaces
        self._counter = reasons
        self._labels: dict[Namespace, tuple[str, int]] = {}
        self._stack = ExitStack()

    def span(self) -> DropSpan:
        """Count a part by itself: ``with drops.span() as span: ...; assert span.xdp == 10``."""
        return DropSpan(self)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._counter is None:
                self._counter = stack.enter_context(ReasonCounter())
            stack.enter_context(self._counter.counting())
            self._before = self._read()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._after = self._read()

    def _read(self) -> DropCounts:
        interfaces: dict[tuple[str, str], InterfaceDrops] = {}
        qdiscs: dict[tuple[str, str, str], QdiscDrops] = {}
        drivers: dict[tuple[str, str, str], int] = {}
        generic_xdp: set[tuple[str, str]] = set()
        for namespace in tuple(self._namespaces):
            try:
                name = self._name(namespace)
                counters = namespace.run(read_counters)
            except PlaceError:  # it was closed
                continue
            interfaces |= {(name, link): counted for link, counted in counters.interfaces.items()}
            qdiscs |= {(name, *where): counted for where, counted in counters.qdiscs.items()}
            drivers |= {(name, *where): packets for where, packets in counters.drivers.items()}
            generic_xdp |= {(name, link) for link in counters.generic_xdp}
        assert self._counter is not None
        names = {cookie: name for name, cookie in self._labels.values()}
        return DropCounts(
            interfaces=interfaces,
            qdiscs=qdiscs,
            drivers=drivers,
            packets=self._counter.read(names),
            generic_xdp=frozenset(generic_xdp),
            namespaces={name: each.inode for each, (name, _) in self._labels.items()},
            unavailable=self._counter.unavailable,
        )

    def _name(self, namespace: Namespace) -> str:
        """Return the label of a namespace: its name, with a number where that is taken."""
        if namespace not in self._labels:
            names = {name for name, _ in self._labels.values()}
            name, again = namespace.name, 2
            while name in names:
                name, again = f"{namespace.name}#{again}", again + 1
            self._labels[namespace] = name, namespace.run(netns_cookie)
        return self._labels[namespace][0]

"""All the places of one test, made on demand and closed together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.places.cgroup import Cgroup
from pytest_bpf.places.namespace import Namespace
from pytest_bpf.places.pins import PinDirectory
from pytest_bpf.places.topology import Topology, bridge, pair, router

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_bpf.places.layout import Layout


class Places:
    """Makes namespaces, topologies, cgroups and directories of pins, and closes them all.

    ``namespaces`` are those made so far. What cannot be made here raises `UnavailableError`.
    """

    def __init__(self) -> None:
        self.namespaces: list[Namespace] = []
        self._closing: list[Namespace | Topology | Cgroup | PinDirectory] = []

    def namespace(self, name: str = "netns") -> Namespace:
        """One namespace with nothing but its loopback."""
        made = Namespace(name)
        self._closing.append(made)
        self.namespaces.append(made)
        return made

    def pair(
        self,
        *,
        interfaces: tuple[str, str] = ("veth0", "veth0"),
        mtu: int = 1500,
        queues: int = 1,
        quiet: bool = True,
    ) -> Topology:
        """Two namespaces joined by a veth; see `pytest_bpf.places.pair`."""
        return self._keep(pair(interfaces=interfaces, mtu=mtu, queues=queues, quiet=quiet))

    def router(self, *, mtu: int = 1500, queues: int = 1, quiet: bool = True) -> Topology:
        """Two namespaces with a router between them; see `pytest_bpf.places.router`."""
        return self._keep(router(mtu=mtu, queues=queues, quiet=quiet))

    def bridge(
        self, n: int = 3, *, mtu: int = 1500, queues: int = 1, quiet: bool = True
    ) -> Topology:
        """``n`` hosts on a bridge; see `pytest_bpf.places.bridge`."""
        return self._keep(bridge(n, mtu=mtu, queues=queues, quiet=quiet))

    def topology(self, layout: Layout) -> Topology:
        """Any layout of namespaces and cables."""
        return self._keep(Topology(layout))

    def cgroup(self) -> Cgroup:
        """A cgroup (v2) of its own."""
        made = Cgroup()
        self._closing.append(made)
        return made

    def pins(self) -> Path:
        """A private directory on a bpf file system."""
        made = PinDirectory()
        self._closing.append(made)
        return made.path

    def close(self) -> None:
        """Close everything, the last made first; one that fails does not keep the others."""
        failure: Exception | None = None
        while self._closing:
            try:
                self._closing.pop().close()
            except Exception as error:  # noqa: BLE001 (raised again below)
                failure = failure or error
        self.namespaces.clear()
        if failure is not None:
            raise failure

    def __enter__(self) -> Places:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, made: Topology) -> Topology:
        self._closing.append(made)
        self.namespaces.extend(made)
        return made

"""All the places of one test, made on demand and closed together."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.cgroup import cgroupfs
from pytest_bpf.cgroup.cgroup import Cgroup
from pytest_bpf.errors import BpfError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys import bpffs
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.kernel.sys.names import is_stale
from pytest_bpf.netns.layout import FIRST_IFINDEX
from pytest_bpf.netns.namespace import Namespace
from pytest_bpf.netns.topology import Topology, bridge, pair, router

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_bpf.netns.layout import Layout


@checked_methods
class Places:
    """Makes namespaces, topologies, cgroups and directories of pins, and closes them all.

    ``namespaces`` are those made so far. What cannot be made here raises `UnavailableError`.
    """

    def __init__(self, on_namespace: Callable[[Namespace], object] = lambda _: None) -> None:
        """Begin with none; ``on_namespace`` is called with each namespace once it is wired."""
        self._on_namespace = on_namespace
        self.namespaces: list[Namespace] = []
        self._closing: list[Namespace | Topology | Cgroup | PinDirectory] = []

    def namespace(self, name: str = "netns") -> Namespace:
        """One namespace with nothing but its loopback."""
        place = Namespace(name)
        self._closing.append(place)
        self.namespaces.append(place)
        self._on_namespace(place)
        return place

    def pair(
        self,
        *,
        interfaces: tuple[str, str] | None = None,
        mtu: int = 1500,
        queues: int = 1,
        quiet: bool = True,
        xdp: bool = False,
        kind: str = "veth",
        ifindex: int = FIRST_IFINDEX,
    ) -> Topology:
        """Two namespaces joined by a veth, or a netkit; see `pytest_bpf.netns.pair`."""
        return self._keep(
            pair(
                interfaces=interfaces,
                mtu=mtu,
                queues=queues,
                quiet=quiet,
                xdp=xdp,
                kind=kind,
                ifindex=ifindex,
            )
        )

    def router(
        self,
        *,
        mtu: int = 1500,
        queues: int = 1,
        quiet: bool = True,
        xdp: bool = False,
        ifindex: int = FIRST_IFINDEX,
    ) -> Topology:
        """Two namespaces with a router between them; see `pytest_bpf.netns.router`."""
        return self._keep(router(mtu=mtu, queues=queues, quiet=quiet, xdp=xdp, ifindex=ifindex))

    def bridge(
        self,
        n: int = 3,
        *,
        mtu: int = 1500,
        queues: int = 1,
        quiet: bool = True,
        xdp: bool = False,
        ifindex: int = FIRST_IFINDEX,
    ) -> Topology:
        """``n`` hosts on a bridge; see `pytest_bpf.netns.bridge`."""
        return self._keep(bridge(n, mtu=mtu, queues=queues, quiet=quiet, xdp=xdp, ifindex=ifindex))

    def topology(self, layout: Layout) -> Topology:
        """Any layout of namespaces and cables."""
        return self._keep(Topology(layout))

    def cgroup(self) -> Cgroup:
        """A cgroup (v2) of its own."""
        place = Cgroup()
        self._closing.append(place)
        return place

    def pins(self) -> Path:
        """A private directory on a bpf file system."""
        place = PinDirectory()
        self._closing.append(place)
        return place.path

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

    def _keep(self, place: Topology) -> Topology:
        self._closing.append(place)
        self.namespaces.extend(place)
        for namespace in place:
            self._on_namespace(namespace)
        return place


def sweep() -> list[str]:
    """Remove what killed test runs left, and return the paths.

    These are cgroups (with their processes), folders of pins, and private bpf mounts of this
    package, and what is half done in the cache. What cannot be removed now is left for the next
    run.
    """
    paths: list[str] = []
    with suppress(BpfError):
        paths += map(str, open_cache().sweep())
    for path, remove in (*cgroupfs.leftovers(is_stale), *bpffs.leftovers(is_stale)):
        with suppress(OSError):
            remove(path)
            paths.append(str(path))
    return paths

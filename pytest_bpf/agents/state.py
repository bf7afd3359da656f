"""What is pinned in a directory, and what is attached around a command."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cgroup import cgroupfs
from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys import bpffs, ids, libbpf
from pytest_bpf.kernel.sys.descriptors import object_of
from pytest_bpf.kernel.sys.info import map_ids
from pytest_bpf.objects.link.info import link_info
from pytest_bpf.objects.link.query import Attachment, attachment, query
from pytest_bpf.objects.link.ways.netfilter import FAMILIES, HOOKS
from pytest_bpf.objects.search.inventory import Inventory, program_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_bpf.kernel.sys.ids import Kind
    from pytest_bpf.netns import Namespace

NETWORK = "network namespace"
"""Where what is attached to the namespace itself is listed; no interface can be called so."""

Hook = tuple[str, Attachment]
"""An interface's name, a cgroup's path or `NETWORK`, and what is attached there."""


@dataclass(frozen=True)
class State:
    """What is pinned, by path and (kind, id), and what is attached."""

    pins: Mapping[str, tuple[Kind, int]] = field(default_factory=dict)
    hooks: frozenset[Hook] = frozenset()

    def inventory(self) -> Inventory:
        """Return all that can be reached from there."""
        programs = {n for kind, n in self.pins.values() if kind == "prog"}
        links = {n for kind, n in self.pins.values() if kind == "link"}
        maps = {n for kind, n in self.pins.values() if kind == "map"}
        for _, each in self.hooks:
            programs.add(each.program_id)
            links |= {each.link_id} - {0}
        programs |= {program_of(link) for link in links} - {0}
        for program in programs:
            with ids.open_while("prog", program) as fd:
                maps.update(map_ids(fd) if fd is not None else ())
        return Inventory(frozenset(programs), frozenset(maps), frozenset(links))


@dataclass(frozen=True)
class Place:
    """Where a command runs: its directory of pins, its network namespace, cgroups it may use."""

    pins: Path
    namespace: Namespace | None
    cgroups: tuple[Path, ...] = ()

    def is_outside(self, place: str) -> bool:
        """Say whether a hook's place is none of the test's, so that it outlives the test."""
        if place[:1] == "/":
            own = cgroupfs.made_here()
            return not any(Path(place).is_relative_to(path) for path in own)
        return self.namespace is None

    def look(self) -> State:
        """Return what is there now."""
        pins = dict(_pinned(self.pins))
        hooks = {*(self.namespace.run(_network) if self.namespace else _network())}
        hooks.update(_netfilter(n for kind, n in pins.values() if kind == "link"))
        for path in {*cgroupfs.made_here(), *self.cgroups}:
            hooks.update(_cgroup(path))
        return State(pins, frozenset(hooks))


def cgroups_of(words: Sequence[str]) -> tuple[Path, ...]:
    """Return the cgroups that a command line names."""
    candidates = {word.rpartition("=")[2] for word in words}
    return tuple(Path(path) for path in candidates if path[:1] == "/" and cgroupfs.is_cgroup(path))


def _network() -> list[Hook]:
    """Return what hangs on the calling thread's network namespace and its interfaces."""
    found = [(NETWORK, each) for each in query("/proc/thread-self/ns/net")]
    for index, name in socket.if_nameindex():
        try:
            found += [(name, each) for each in query(index)]
        except AttachError:
            if (index, name) in socket.if_nameindex():
                raise
    return found


def _netfilter(links: Iterable[int]) -> Iterator[Hook]:
    """Return where links of netfilter hang, which the kernel does not tell of a namespace."""
    families, hooks = ({n: name for name, n in names.items()} for names in (FAMILIES, HOOKS))
    for link in links:
        with ids.open_while("link", link) as fd:
            if fd is not None and (info := link_info(fd)).type == "netfilter":
                where = families.get(info.family or 0), hooks.get(info.hook or 0)
                hook, priority = "netfilter {} {}".format(*where), info.priority or 0
                yield NETWORK, attachment(hook, info.program_id, link, priority=priority)


def _cgroup(path: Path) -> list[Hook]:
    """Return what hangs on a cgroup and those below it; nothing on those that are gone."""
    found = []
    for folder, _, _ in os.walk(path):
        try:
            found += [(folder, each) for each in query(folder)]
        except AttachError:
            if Path(folder).exists():
                raise
    return found


def _pinned(pins: Path) -> Iterator[tuple[str, tuple[Kind, int]]]:
    for folder, _, files in os.walk(pins):
        for name in files:
            path = Path(folder, name)
            try:
                fd = int(libbpf.call("bpf_obj_get", os.fsencode(path)))
            except (PermissionError, FileNotFoundError):  # the kernel's own file, or gone meanwhile
                continue
            try:
                yield f"{bpffs.USUAL}/{path.relative_to(pins)}", object_of(fd)
            finally:
                os.close(fd)

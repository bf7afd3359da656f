"""A command that loads programs and ends: what it leaves pinned and attached."""

from __future__ import annotations

import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_bpf.agents.objects import AgentObjects
from pytest_bpf.agents.state import NETWORK, State
from pytest_bpf.errors import AgentError
from pytest_bpf.objects.names import NameMapping
from pytest_bpf.objects.search.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.agents.process import AgentProcess
    from pytest_bpf.agents.state import Hook, Place
    from pytest_bpf.objects import Attachment, Link, Map, Program


GOING = 0.5
"""Seconds in which the kernel frees what nothing holds any more, mostly far less."""


class Command:
    """A command that has ended, and what it left: programs, maps, links, pins, attachments.

    ``pins`` are by their paths as the command saw them. ``attachments`` are by the names of the
    interfaces of its network namespace, by `NETWORK` those of the namespace itself, and by their
    paths those of cgroups: the test's own, and those that its command line names. ``programs``,
    ``maps`` and ``links`` are by name what can be reached from both. They are those that are new
    since before it ran.
    """

    def __init__(self, name: str, process: AgentProcess, place: Place, before: State) -> None:
        self.name, self._place = name, place
        self._process = process
        self._before = before
        self._objects = AgentObjects(Inventory())
        self._show(State())

    def run(self, timeout: float, *, check: bool = True) -> None:
        """Wait for its end; raises `AgentError` when it fails (with ``check``), or does not end."""
        code = self._process.wait(timeout)
        faults = list(self._process.end(9, 1.0))
        self._look()  # what failed may have left something, too
        if code is None:
            raise self._error(f"did not end within {timeout:g} s and was killed")
        self.exit_status = code
        if code and check:
            raise self._error(f"failed: {self._process.end_status}")
        if faults:
            raise self._error("; it ".join(faults))

    def _look(self) -> None:
        """Show what is new since before it ran."""
        now = self._place.look()
        pins = {
            path: what for path, what in now.pins.items() if self._before.pins.get(path) != what
        }
        earlier = {_without_revision(hook) for hook in self._before.hooks}
        hooks = {hook for hook in now.hooks if _without_revision(hook) not in earlier}
        self._show(State(pins, frozenset(hooks)))

    def _show(self, state: State) -> None:
        self._state = state
        objects = self._objects = AgentObjects(state.inventory())
        self.programs: Mapping[str, Program] = NameMapping("program", self.name, objects.programs)
        self.maps: Mapping[str, Map] = NameMapping("map", self.name, objects.maps)
        self.links: Mapping[str, Link] = NameMapping("link", self.name, objects.links)
        by_id: dict[tuple[str, int], Program | Map | Link] = {
            **{("prog", each.id): each for each in objects.programs.values()},
            **{("map", each.id): each for each in objects.maps.values()},
            **{("link", each.id): each for each in objects.links.values()},
        }
        self.pins: Mapping[str, Program | Map | Link] = NameMapping(
            "pin", self.name, {path: by_id[what] for path, what in state.pins.items()}
        )
        places = sorted({name for name, _ in state.hooks})
        self.attachments: Mapping[str, tuple[Attachment, ...]] = MappingProxyType(
            {name: tuple(_ordered(state, name)) for name in places}
        )

    @property
    def output(self) -> str:
        """What it printed, on both of its streams."""
        return self._process.log.text

    @property
    def leftovers(self) -> list[str]:
        """What of it is there now, in words; empty once another command has unloaded it.

        Where a part is gone, the rest may be going: the kernel frees links, and what they hold, a
        little later. So that is looked at again for a moment.
        """
        left, whole = self._left()
        end = time.monotonic() + GOING
        while left and len(left) < whole and time.monotonic() < end:
            time.sleep(GOING / 25)
            left, _ = self._left()
        return left

    def _left(self) -> tuple[list[str], int]:
        """Return what is there now, and of how many parts."""
        now = self._place.look()
        names = {
            ("prog", each.id): f"program {each.name}" for each in self._objects.programs.values()
        }
        names |= {("map", each.id): f"map {each.name}" for each in self._objects.maps.values()}
        reachable = now.inventory()
        left = [name for (kind, n), name in names.items() if n in _of(reachable, kind)]
        pins = self._state.pins.items()
        left += [f"pin {path}" for path, what in pins if now.pins.get(path) == what]
        left += [where for hook in self._state.hooks for where in _present(hook, now)]
        return sorted(left), len(names) + len(pins) + len(self._state.hooks)

    def close(self) -> None:
        """Let go of what was opened here; what it pinned goes with the directory of pins.

        Raises `AgentError` when it has left something attached outside of the namespaces and
        cgroups that the test made.
        """
        self._objects.close()
        with_pins = {number for kind, number in self._state.pins.values() if kind == "link"}
        outside = [
            hook
            for hook in self._state.hooks
            if self._place.is_outside(hook[0]) and hook[1].link_id not in with_pins
        ]
        if not outside:
            return
        now = self._place.look()
        left = [where for hook in outside for where in _present(hook, now)]
        if left:
            raise self._error(
                f"left {', '.join(sorted(left))}, which outlives the test; unload it, or run it in "
                "a namespace (namespace=) or a cgroup of the test"
            )

    def _error(self, sentence: str) -> AgentError:
        return AgentError(f"command {self.name!r} {sentence}{self._process.log.tail}", self.output)

    def __repr__(self) -> str:
        return f"<Command {self.name}: {len(self.programs)} programs, {len(self.pins)} pins>"


def _present(hook: Hook, now: State) -> list[str]:
    """Return, in words, what is attached there, if it still is."""
    place, each = hook
    if (place, each.hook, each.program_id) not in {(p, e.hook, e.program_id) for p, e in now.hooks}:
        return []
    return [f"{each.hook} of {'the ' if place == NETWORK else ''}{place}: {each.program}"]


def _without_revision(hook: Hook) -> Hook:
    """Return an attachment as it stays when others are attached to the same hook."""
    return hook[0], replace(hook[1], revision=0)


def _ordered(state: State, place: str) -> list[Attachment]:
    hooks = [each for name, each in state.hooks if name == place]
    return sorted(hooks, key=lambda each: (each.hook, each.priority, each.program_id))


def _of(inventory: Inventory, kind: str) -> frozenset[int]:
    return inventory.programs if kind == "prog" else inventory.maps

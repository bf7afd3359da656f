"""Saved machines: one that fits is found, or made; and one is restored.

A folder holds ``memory`` (the guest's, sparse, mapped privately by each restored machine),
``devices`` (qemu's migration stream) and ``stamp.json`` (what must not have changed since).
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from pytest_bpf.cache import mark_used, open_cache
from pytest_bpf.errors import BpfError
from pytest_bpf.vm import python, qemu, saving
from pytest_bpf.vm.machine import MachineError, QemuProcess
from pytest_bpf.vm.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self

    from pytest_bpf.vm.qemu import Descriptors, Machine

FILES = ("stamp.json", "memory", "devices")

TRIES = 3
"""How often to save when files change meanwhile."""


@dataclass(frozen=True)
class SavedState:
    """A state, opened: it stays whole even when another run replaces it meanwhile."""

    recipe: Recipe
    memory: IO[bytes]
    devices: IO[bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()
        self.devices.close()

    def command(self, wiring: Descriptors, writable: Sequence[Path]) -> list[str]:
        """Return the command line of a qemu that waits to be given this state."""
        machine = self.recipe.machine
        memory = f"/proc/self/fd/{self.memory.fileno()}"
        return [
            qemu.program(),
            *qemu.hardware(machine, self.recipe.accelerator),
            *qemu.backends(machine, wiring, memory, shared=False, writable=writable),
            *("-incoming", "defer"),
        ]

    def restore(self, writable: Sequence[Path] = (), *, console: bool = False) -> QemuProcess:
        """Start a machine in this state, its ``console`` shown if asked for; it waits for work."""
        running = QemuProcess(
            lambda wiring: self.command(wiring, writable), (self.memory.fileno(),), live=console
        )
        with ExitStack() as undo:
            undo.enter_context(running)
            incoming = {"execute": "migrate-incoming", **saving.STREAM}
            running.begin(*saving.COMMANDS, incoming, descriptor=self.devices.fileno())
            undo.pop_all()
        return running


def obtain(machine: Machine, path: Sequence[str], *, renew: bool = False) -> SavedState:
    """Return the machine's state, saved now when there is none, it is stale, or ``renew``.

    ``path`` is the ``sys.path`` of the Python in it. Raises `UnavailableError` without qemu and
    `MachineError` when the kernel does not come up.
    """
    *others, last = machine.accelerators()
    failures = []
    for accelerator in others:
        recipe = Recipe(machine, accelerator, tuple(path))
        if not recipe.has_failed:
            try:
                return _obtain(recipe, renew=renew)
            except MachineError as error:
                failures.append((recipe, error))
    saved = _obtain(Recipe(machine, last, tuple(path)), renew=renew)
    for failed, reason in failures:  # of the accelerator, as it works with another
        failed.record_failure(reason)
    return saved


def _obtain(recipe: Recipe, *, renew: bool) -> SavedState:
    if not renew and (saved := _open(recipe)):
        return saved
    with open_cache().lock(f"machine-{recipe.key}"):
        if not renew and (saved := _open(recipe)):
            return saved
        for _ in range(TRIES):
            saving.save(recipe)
            if saved := _open(recipe):
                return saved
    raise BpfError(
        f"the files that Python imports from {', '.join(recipe.path)} changed while a machine was "
        f"saved, {TRIES} times; try again when they do not"
    )


def _open(recipe: Recipe) -> SavedState | None:
    """Open a state if it is there, whole, and made of what is on the disk now."""
    cache = open_cache()
    if not all(cache.trusts(recipe.folder / name) for name in FILES):
        return None
    with ExitStack() as undo:
        try:
            folder = os.open(recipe.folder, os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(os.close, folder)
            opener = partial(os.open, dir_fd=folder)
            with open("stamp.json", "rb", opener=opener) as file:
                stamp = json.load(file)
            files = ExitStack()
            undo.push(files)
            memory, devices = (
                files.enter_context(open(name, mode, buffering=0, opener=opener))
                for name, mode in (("memory", "r+b"), ("devices", "rb"))
            )
        except (OSError, ValueError):
            return None
        saved = SavedState(recipe, memory, devices)
        if not _whole(saved, stamp) or not python.is_current(stamp["python"], recipe.path):
            return None
        files.pop_all()
        mark_used(recipe.folder)
        return saved


def _whole(saved: SavedState, stamp: dict[str, Any]) -> bool:
    content = os.pread(saved.devices.fileno(), os.fstat(saved.devices.fileno()).st_size, 0)
    return (
        hashlib.sha256(content).hexdigest() == stamp["devices"]
        and os.fstat(saved.memory.fileno()).st_size == saved.recipe.machine.memory << 20
    )

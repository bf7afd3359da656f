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

from pytest_bpf.cache import open_cache, used
from pytest_bpf.errors import BpfError
from pytest_bpf.vm import python, qemu, saving
from pytest_bpf.vm.machine import MachineError, Running
from pytest_bpf.vm.place import Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qemu.qmp import QMPClient
    from typing_extensions import Self

    from pytest_bpf.vm.qemu import Machine, Wiring

TRIES = 3
"""How often to save when files change meanwhile."""


@dataclass(frozen=True)
class Saved:
    """A state, opened: it stays whole even when another run replaces it meanwhile."""

    place: Place
    memory: IO[bytes]
    devices: IO[bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()
        self.devices.close()

    def command(self, wiring: Wiring, writable: Sequence[Path]) -> list[str]:
        """Return the command line of a qemu that waits to be given this state."""
        machine = self.place.machine
        memory = f"/proc/self/fd/{self.memory.fileno()}"
        return [
            qemu.program(),
            *qemu.hardware(machine, self.place.accelerator),
            *qemu.backends(machine, wiring, memory, shared=False, writable=writable),
            *("-incoming", "defer"),
        ]

    def restore(self, writable: Sequence[Path] = ()) -> Running:
        """Start a machine in this state; it waits for its command."""
        running = Running(lambda wiring: self.command(wiring, writable), (self.memory.fileno(),))
        with ExitStack() as undo:
            undo.enter_context(running)
            running.qmp(self._load)
            undo.pop_all()
        return running

    async def _load(self, client: QMPClient) -> None:
        await saving.give_stream(client, self.devices.fileno())
        await client.execute("migrate-incoming", saving.STREAM)


def opened(machine: Machine, path: Sequence[str], *, afresh: bool = False) -> Saved:
    """Return the machine's state, saved now when there is none, it is stale, or ``afresh``.

    ``path`` is the ``sys.path`` of the Python in it. Raises `UnavailableError` without qemu and
    `MachineError` when the kernel does not come up.
    """
    *others, last = machine.accelerators()
    for accelerator in others:
        place = Place(machine, accelerator, tuple(path))
        if not place.given_up:
            try:
                return _opened(place, afresh=afresh)
            except MachineError as error:
                place.give_up(error)
    return _opened(Place(machine, last, tuple(path)), afresh=afresh)


def _opened(place: Place, *, afresh: bool) -> Saved:
    if not afresh and (saved := _open(place)):
        return saved
    with open_cache().lock(f"machine-{place.key}"):
        if not afresh and (saved := _open(place)):
            return saved
        for _ in range(TRIES):
            saving.save(place)
            if saved := _open(place):
                return saved
    raise BpfError(
        f"the files that Python imports from {', '.join(place.path)} changed while a machine was "
        f"saved, {TRIES} times; try again when they do not"
    )


def _open(place: Place) -> Saved | None:
    """Open a state if it is there, whole, and made of what is on the disk now."""
    with ExitStack() as undo:
        try:
            folder = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY)
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
        saved = Saved(place, memory, devices)
        if not _whole(saved, stamp) or not python.is_current(stamp["python"], place.path):
            return None
        files.pop_all()
        used(place.folder)
        return saved


def _whole(saved: Saved, stamp: dict[str, Any]) -> bool:
    content = os.pread(saved.devices.fileno(), os.fstat(saved.devices.fileno()).st_size, 0)
    return (
        hashlib.sha256(content).hexdigest() == stamp["devices"]
        and os.fstat(saved.memory.fileno()).st_size == saved.place.machine.memory << 20
    )

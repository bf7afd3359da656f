"""Making a saved machine: boot, wait until Python is warm there, keep all as it is then."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.cache import forget_old, open_cache
from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import image, lookup
from pytest_bpf.vm import initramfs, python, qemu
from pytest_bpf.vm.guest import init
from pytest_bpf.vm.machine import MachineError, QemuProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf.vm.qemu import Descriptors
    from pytest_bpf.vm.qmp import Command
    from pytest_bpf.vm.recipe import Recipe

BOOT_TIMEOUT = {"kvm": 60.0, "tcg": 600.0}
"""Seconds a boot with the warm-up may take: on a machine with far too much to do it does."""

ROOM = 700
"""MiB of disk that saving needs for a while; a good half of it stays."""

FULL = 16
"""MiB that are left of a disk that is full."""

UNUSED = 14 * 24 * 3600
"""Seconds after which a state that no run has used is removed."""

MOST = 32
"""Saved machines that are kept, at half a gigabyte each."""

LACKS = re.compile(rf"{init.LACKS}(.*)")

STREAM: Command = {"arguments": {"uri": "fd:state"}}

CAPABILITIES = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
"""The memory is a file already, so it stays out of the stream; qemu says when all is written."""

COMMANDS: tuple[Command, ...] = (
    {"execute": "migrate-set-capabilities", "arguments": {"capabilities": CAPABILITIES}},
    {"execute": "getfd", "arguments": {"fdname": "state"}},
)
"""What qemu is told before it writes or reads its stream, to a descriptor that goes with it."""


def save(recipe: Recipe) -> None:
    """Boot, wait until Python is warm, and keep what the machine is then."""
    machine, cache = recipe.machine, open_cache()
    started = time.monotonic()
    lookup.require_modules(machine.kernel)
    title = f"saving a machine with kernel {machine.kernel} ({recipe.accelerator}), once: "
    with cache.workspace() as folder, _room(folder), _progress(title):
        _note("reading what Python imports, ", end="")
        closure = python.inspect(list(recipe.path), folder)
        stamp: dict[str, Any] = {"python": python.stamp(closure, recipe.path)}
        with (folder / "initramfs").open("wb") as output:
            initramfs.write(output, machine, closure, recipe.path)
        plain = image.extract(machine.kernel.image)
        kernel = machine.kernel.image
        if plain:
            kernel = folder / "vmlinux"
            kernel.write_bytes(plain)
        state = folder / "state"
        state.mkdir(mode=0o700)
        _note("booting, ", end="")
        try:
            _boot(recipe, kernel, folder / "initramfs", state)
        except MachineError as error:
            if match := LACKS.search(str(error)):
                raise lookup.lacking(machine.kernel, match[1]) from None
            raise
        stamp["devices"] = hashlib.sha256((state / "devices").read_bytes()).hexdigest()
        (state / "stamp.json").write_text(json.dumps(stamp))
        for file in state.iterdir():
            file.chmod(0o600)
        cache.path("machines", "x")
        with suppress(FileNotFoundError):
            recipe.folder.rename(folder / "old")
        state.rename(recipe.folder)
    forget_old(recipe.folder.parent, UNUSED, most=MOST)
    _note(f"{time.monotonic() - started:.0f} s")


@contextmanager
def _progress(title: str) -> Iterator[None]:
    """Begin a line of progress; end it when it comes to nothing."""
    _note(title, end="")
    try:
        yield
    except BaseException:
        _note("not saved")
        raise


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Raise `BpfError` when ``folder`` has no room for a machine, at first or in the end."""
    free = shutil.disk_usage(folder).free >> 20
    refusal = BpfError(
        f"saving a machine needs {ROOM} MiB, {open_cache().folder} has {free} MiB left; make room "
        "there, or set PYTEST_BPF_CACHE to another folder"
    )
    if free < ROOM:
        raise refusal
    try:
        yield
    except (OSError, MachineError):
        if shutil.disk_usage(folder).free >> 20 < FULL:
            raise refusal from None
        raise


def _boot(recipe: Recipe, kernel: Path, archive: Path, state: Path) -> None:
    machine = recipe.machine
    descriptor = os.open(state / "devices", os.O_RDWR | os.O_CREAT, 0o600)

    def command(wiring: Descriptors) -> list[str]:
        words = qemu.command_line(machine, sys.executable, init.__file__)
        return [
            qemu.program(),
            *qemu.hardware(machine, recipe.accelerator),
            *qemu.backends(machine, wiring, str(state / "memory"), shared=True),
            *("-kernel", str(kernel), "-initrd", str(archive), "-append", words),
        ]

    try:
        with QemuProcess(command) as running:
            running.receive(BOOT_TIMEOUT[recipe.accelerator])
            _note("saving, ", end="")
            qmp = running.begin(*COMMANDS, {"execute": "migrate", **STREAM}, descriptor=descriptor)
            with running.refusals():
                qmp.wait_migrated()
    finally:
        os.close(descriptor)


def _note(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)  # noqa: T201 (progress)

"""qemu's command line, from a table of what differs between architectures."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernel.sys.exact import EXACT, INEXACT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_bpf.kernels.kernel import Kernel

PORTS = ("control", "in", "out", "err", "compile")
"""The virtio ports between host and guest, each a socket on this side."""

WRITABLE = 4
"""How many folders can be writable: the devices are part of the saved state."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""The system calls that qemu gives up (seccomp): a guest that breaks out starts nothing here."""

ROOT_TAG = "root"

CPUS = 1
MEMORY = 1024
"""What a machine is given, when nothing else is asked for: CPUs, and MiB."""

ANY_SIZE = "rootfstype=ramfs"
"""The first root may fill the memory: a tmpfs has half of what the archive beside it leaves."""

SMALL_PAGES = "transparent_hugepage=never"
"""Clearing and copying two megabytes at a time takes long where each instruction does."""

UNCLEARED = "init_on_alloc=0"
"""The kernel need not clear what it allocates; where instructions count, it does what it does."""

MOST_CPUS = 64
MOST_MEMORY = 1 << 20
LEAST_MEMORY = 512
"""MiB in which a kernel, a warm Python and its files just find room."""


@dataclass(frozen=True)
class Architecture:
    """What qemu calls the parts of a machine, as ``-machine help`` and so on list them."""

    program: str
    package: str
    machine: str
    emulated_cpu: str
    console: str
    mitigations: str
    """Words for the kernel that turn each mitigation off.

    They are what ``mitigations=off`` stands for, but with that word the verifier would not protect
    the kernel from programs without privilege either, and tests of the verifier expect that it
    does.
    """
    exact: tuple[str, ...] = ()
    """Words for the kernel of an exact machine, so that it takes its clock for what it is."""


_X86_MITIGATIONS = (
    "nopti nospectre_v1 nospectre_v2 spectre_v2_user=off spectre_bhi=off retbleed=off "
    "spec_store_bypass_disable=off spec_rstack_overflow=off indirect_target_selection=off "
    "l1tf=off mds=off tsx_async_abort=off tsa=off mmio_stale_data=off srbds=off "
    "gather_data_sampling=off reg_file_data_sampling=off"
)

ARCHITECTURES = {
    "x86_64": Architecture(
        *("qemu-system-x86_64", "qemu-system-x86", "q35,smbus=off,sata=off,vmport=off,hpet=off"),
        *("max,la57=off", "ttyS0", _X86_MITIGATIONS),
        exact=("tsc_early_khz=1000000", "pmtmr=0"),
    ),
    "aarch64": Architecture(
        *("qemu-system-aarch64", "qemu-system-arm", "virt,gic-version=max", "max", "ttyAMA0"),
        "kpti=0 nospectre_v2 nospectre_bhb ssbd=force-off",
    ),
}


@dataclass(frozen=True)
class Machine:
    """A machine to make: its kernel and what it is made of; ``memory`` in MiB.

    An ``exact`` machine counts: its clock advances one nanosecond an instruction (``-icount``).
    """

    kernel: Kernel
    exact: bool = False
    cpus: int = CPUS
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if not LEAST_MEMORY <= self.memory <= MOST_MEMORY:
            raise BpfError(
                f"a machine has {LEAST_MEMORY} to {MOST_MEMORY} MiB of memory, not {self.memory}"
            )
        if not 1 <= self.cpus <= MOST_CPUS:
            raise BpfError(f"a machine has 1 to {MOST_CPUS} CPUs, not {self.cpus}")
        if self.exact and self.cpus != 1:
            raise BpfError(
                f"an exact machine has one CPU, not {self.cpus}: qemu's -icount needs that"
            )

    @property
    def architecture(self) -> Architecture:
        """The row of the table for this machine's kernel."""
        return ARCHITECTURES[self.kernel.architecture]

    def accelerators(self) -> tuple[str, ...]:
        """Return what to try, best first."""
        usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
        return ("kvm", "tcg") if usable and not self.exact else ("tcg",)


@dataclass(frozen=True)
class Descriptors:
    """What a qemu is joined to, by its descriptors: a socket for qmp and each port, a console."""

    sockets: Mapping[str, int]
    console: int


def program() -> str:
    """Return the path of qemu for this architecture; raise `UnavailableError` without it."""
    known = ARCHITECTURES.get(platform.machine())
    if known is None:
        raise UnavailableError(
            f"no virtual machines on {platform.machine()}, only {', '.join(ARCHITECTURES)}"
        )
    program = shutil.which(known.program)
    if not program:
        raise UnavailableError(
            f"there is no {known.program}; install Debian's or Ubuntu's {known.package} "
            "(--no-install-recommends will do)"
        )
    return program


def hardware(machine: Machine, accelerator: str) -> list[str]:
    """Return the arguments that must be the same when a state is saved and restored."""
    parts = machine.architecture
    devices = [f"virtio-9p-pci,fsdev={tag},mount_tag={tag}" for tag in tags()]
    ports = [f"virtserialport,chardev={name},name={name}" for name in PORTS]
    arguments = [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", f"{parts.machine},memory-backend=memory"),
        *("-cpu", "host" if accelerator == "kvm" else parts.emulated_cpu),
        *("-accel", "kvm" if accelerator == "kvm" else "tcg,tb-size=64"),
        *("-smp", str(machine.cpus), "-m", str(machine.memory)),
    ]
    if machine.exact:
        arguments += ["-icount", "shift=0,sleep=on"]
    for device in ("virtio-serial-pci", *ports, *devices):
        arguments += ["-device", device]
    return arguments


def backends(
    machine: Machine,
    wiring: Descriptors,
    memory: str,
    *,
    shared: bool,
    writable: Sequence[Path] = (),
) -> list[str]:
    """Return the arguments for what stands behind the hardware in this one process.

    ``memory`` is the file that holds it; writes reach the file when it is ``shared``.
    """
    ram = f"size={machine.memory}M,mem-path={_escaped(memory)},share={'on' if shared else 'off'}"
    chardevs = {name: f"socket,fd={number}" for name, number in wiring.sockets.items()}
    chardevs["console"] = f"file,path=/dev/fd/{wiring.console},append=on"
    arguments = [
        *("-object", f"memory-backend-file,id=memory,{ram}"),
        *("-mon", "chardev=qmp,mode=control", "-serial", "chardev:console"),
        *("-sandbox", SANDBOX),
    ]
    for name, chardev in chardevs.items():
        arguments += ["-chardev", f"{chardev},id={name}"]
    for tag, folder in zip(tags(), exports(writable), strict=True):
        export = f"path={_escaped(folder)},readonly={'on' if folder == '/' else 'off'}"
        arguments += ["-fsdev", f"local,id={tag},{export},security_model=none,multidevs=remap"]
    return arguments


def command_line(machine: Machine, python: str, script: str) -> str:
    """Return the kernel's command line; process 1 is ``python`` running ``script``."""
    parts = machine.architecture
    words = [f"console={parts.console}", "quiet", "panic=-1", ANY_SIZE, parts.mitigations]
    words += [SMALL_PAGES, *([EXACT, *parts.exact] if machine.exact else [INEXACT, UNCLEARED])]
    return " ".join([*words, f'rdinit="{python}"', "--", f'"{script}"'])


def tags() -> list[str]:
    """Return the tags of the 9p devices: the root's, then the writable folders'."""
    return [ROOT_TAG, *(f"writable{number}" for number in range(WRITABLE))]


def exports(writable: Sequence[Path]) -> list[str]:
    """Return the folder behind each of `tags`; those not in use show the root, read-only."""
    folders = [str(folder) for folder in writable]
    return ["/", *folders, *["/"] * (WRITABLE - len(folders))]


def _escaped(path: str) -> str:
    """Return a path as qemu's option parser takes it."""
    return path.replace(",", ",,")

"""The kernels of a session: what the user wrote, their names, and where their workers are."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_bpf.cache import chosen_folder
from pytest_bpf.errors import BpfError
from pytest_bpf.kernels.kernel import Kernel
from pytest_bpf.plugin.matrix import hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.plugin.matrix.connection import Connection
    from pytest_bpf.plugin.matrix.sending import Project

HOST = "host"


@dataclass(frozen=True)
class KernelChoice:
    """A kernel of this session at one place: its ``choice`` there, and its name in ids and tables.

    ``written`` is what the user calls the kernel, ``machine`` has words for a machine's command. A
    kernel that ``may_fail`` fails no session. ``limits`` are sentences about what it cannot do.
    One ``host`` or several may have the same kernel: its tests are spread over them. ``logs`` is
    the folder there for what machines say.
    """

    choice: str
    name: str
    machine: tuple[str, ...] = ()
    may_fail: bool = False
    limits: tuple[str, ...] = ()
    written: str = ""
    host: hosts.Host | None = None
    logs: str = ""

    @property
    def is_virtual(self) -> bool:
        """Whether it runs in a machine, and is not the own kernel of this or another host."""
        return bool(self.logs) if self.host else self.name != HOST

    @property
    def place(self) -> str:
        """What tells it from the same kernel elsewhere."""
        if self.host and self.is_virtual:
            return f"{self.name}@{self.host.address.name}"
        return self.name

    def worker(self, number: int) -> str:
        """Return the spec of one of its workers."""
        address = self.host.address if self.host else None
        return hosts.worker(self.name, self.place, number, address)

    @property
    def command(self) -> list[str]:
        """The command that runs what follows it in a machine with this kernel.

        Before Python 3.11 a module in the current folder takes the place of one of Python's.
        """
        safe = ["-P"] if not self.host and sys.version_info >= (3, 11) else []
        return [*self._python, *safe, "-m", "pytest_bpf.vm", *self.words]

    @property
    def words(self) -> list[str]:
        """The words of this command that say which machine."""
        return ["--kernel", self.choice, *self.machine]

    @property
    def python(self) -> str:
        """The Python of its workers."""
        return self.host.python if self.host else sys.executable

    @property
    def _python(self) -> list[str]:
        folder = None if self.host else chosen_folder()
        cache = ["/usr/bin/env", f"PYTEST_BPF_CACHE={folder}"] if folder else []
        return [*cache, self.python]


@dataclass(frozen=True)
class Absence:
    """A kernel that may fail, and that is not to be had; ``reason`` is a sentence."""

    choice: str
    reason: str


class Choices:
    """Finds the kernels, and talks with their hosts, each once."""

    def __init__(self, machine: Sequence[str], project: Callable[[], Project]) -> None:
        self._machine = tuple(machine)
        self._project = project
        self.connections: dict[str, Connection] = {}
        self.kernels: list[KernelChoice] = []
        self.absences: list[Absence] = []
        self._same: dict[tuple[Kernel | str, str], int] = {}

    def add(self, choice: str, *, may_fail: bool) -> None:
        """Add a kernel, once, those of one release told apart by number.

        Raises `BpfError` when it is required and not to be had.
        """
        try:
            if choice.startswith(hosts.WAYS):
                self._add_far(choice, may_fail)
            else:
                self._add_near(choice, may_fail)
        except BpfError as error:
            if not may_fail:
                raise
            self.absences.append(Absence(choice, str(error)))

    def close(self) -> None:
        """Close the connections."""
        for connection in self.connections.values():
            connection.close()

    def _add_near(self, choice: str, may_fail: bool) -> None:
        kernel = _find(choice)
        if self._has(kernel, "", may_fail):
            return
        release = str(kernel)
        near = [known for known in self.kernels if known.host is None]
        same = sum(known.name.partition("#")[0] == release for known in near)
        self.kernels.append(
            KernelChoice(
                _command_name(choice, kernel),
                f"{release}#{same + 1}" if same else release,
                self._machine if isinstance(kernel, Kernel) else (),
                may_fail,
                _limits(kernel),
                choice,
            )
        )

    def _add_far(self, choice: str, may_fail: bool) -> None:
        address, written = hosts.parse(choice)
        connection = self._connect(address)
        host = connection.host
        if not written:
            if not self._has(address.name, address.spec, may_fail):
                self.kernels.append(KernelChoice(choice, address.name, (), may_fail, host=host))
            return
        far = connection.find(written)
        if not self._has(far.release, address.spec, may_fail):
            self.kernels.append(
                KernelChoice(
                    *(far.choice, far.release, self._machine, may_fail, far.limits, written),
                    *(host, far.logs),
                )
            )

    def _connect(self, address: hosts.Address) -> Connection:
        from pytest_bpf.plugin.matrix.connection import Connection

        if address.spec not in self.connections:
            self.connections[address.spec] = Connection(address, self._project)
        return self.connections[address.spec]

    def _has(self, kernel: Kernel | str, spec: str, may_fail: bool) -> bool:
        """Say whether a kernel is there already; it may fail when it may fail each time."""
        key = kernel, spec
        if key not in self._same:
            self._same[key] = len(self.kernels)
            return False
        number = self._same[key]
        before = self.kernels[number]
        self.kernels[number] = replace(before, may_fail=before.may_fail and may_fail)
        return True


def unique(kernels: Sequence[KernelChoice]) -> list[str]:
    """Return the names of kernels, each once: one may be at several places."""
    return list(dict.fromkeys(kernel.name for kernel in kernels))


def gateways(kernels: Sequence[KernelChoice]) -> list[str]:
    """Return the specs of the gateways to the kernels' hosts, each once."""
    return list(dict.fromkeys(kernel.host.gateway for kernel in kernels if kernel.host))


def here(kernel: KernelChoice) -> KernelChoice | None:
    """Return the same kernel of a machine here, for one of a host that is gone; None without it."""
    try:
        found = _find(kernel.written)
    except BpfError:
        return None
    if str(found) != kernel.name:
        return None
    return replace(kernel, choice=_command_name(kernel.written, found), host=None, logs="")


def _find(choice: str) -> Kernel | str:
    """Return the kernel of a machine, or `HOST`."""
    from pytest_bpf.kernels import limits, lookup

    kernel = lookup.find(choice)
    if kernel is not None:
        limits.require_possible(kernel)
    return kernel or HOST


def _command_name(choice: str, kernel: Kernel | str) -> str:
    """Return what a machine's command calls a kernel: its image, so that nobody is asked again."""
    return str(kernel.image) if isinstance(kernel, Kernel) else choice


def _limits(kernel: Kernel | str) -> tuple[str, ...]:
    if not isinstance(kernel, Kernel):
        return ()
    from pytest_bpf.kernels import limits

    return tuple(limits.of(kernel))

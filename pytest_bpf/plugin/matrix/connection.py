"""The first talk with another host: is it fit, the project goes there, its machines get ready."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError
from pytest_bpf.plugin.matrix import hosts, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from execnet import Channel, Gateway, Group

    from pytest_bpf.plugin.matrix.sending import Project

ANSWER = 120.0
"""Seconds in which a host must say what it is."""

LOOKUP = 1800.0
"""Seconds in which it must have a kernel, which it may have to download."""

ABOUT = """
import platform, sys
try:
    from importlib.metadata import version
    ours = version("pytest-bpf")
except Exception:
    ours = ""
channel.send([sys.executable, platform.machine(), ours])
"""
"""Runs there before anything of ours can be relied on."""

CALL = "from pytest_bpf.vm import served; served.{}(channel)"


@dataclass(frozen=True)
class FarKernel:
    """A kernel on a host: its release, limits, what its command takes, where words are kept."""

    release: str
    limits: tuple[str, ...]
    choice: str
    logs: str


class Connection:
    """A host that answers; it is closed when its machines are ready. Errors are `BpfError`."""

    def __init__(self, address: hosts.Address, project: Callable[[], Project]) -> None:
        import execnet

        self._address = address
        self._group: Group = execnet.Group()
        self._saving: dict[str, Channel] = {}
        try:
            self._gateway: Gateway = self._group.makegateway(f"execmodel=thread//{address.spec}")
            python, machine, there = self._gateway.remote_exec(ABOUT).receive(ANSWER)
        except hosts.lost() as error:
            self.close()
            raise unreachable(address.name, error) from None
        self._require_ours(python, there)
        is_alike = machine == platform.machine()
        self.host = hosts.Host(address, python, is_alike=is_alike)
        if not address.chdir:
            what = project()
            folder = self._send(what)
            below = str(Path(folder, what.folder.relative_to(what.root)))
            self.host = replace(self.host, folder=below, sent=(str(what.root), folder))

    def find(self, choice: str) -> FarKernel:
        """Return the kernel that ``choice`` names there."""
        answer = self._ask("find", choice, LOOKUP)
        if "error" in answer:
            raise BpfError(f"{self._address.name}: {answer['error']}")
        return FarKernel(
            answer["release"], tuple(answer["limits"]), answer["choice"], answer["logs"]
        )

    def begin_saving(self, name: str, words: Sequence[str]) -> None:
        """Have a machine's saved state made there; ``words`` are its command's."""
        with suppress(*hosts.lost()):  # `finish_saving` says so
            channel = self._gateway.remote_exec(CALL.format("save"))
            channel.send(list(words))
            self._saving[name] = channel

    def finish_saving(self, name: str) -> str:
        """Wait for that, its progress on the terminal; return why there is no machine, or ""."""
        status = 0

        def output(channel: Channel) -> Iterator[bytes]:
            nonlocal status
            while isinstance(said := channel.receive(), bytes):
                yield said
            status = said

        try:
            if (channel := self._saving.pop(name, None)) is None:
                raise EOFError("before it was asked to save a machine")
            last = progress.show(output(channel))
        except hosts.lost() as error:
            return f"the connection ended: {error}"
        return (last or f"exit status {status}") if status else ""

    def close(self) -> None:
        """Close the connection; safe to call again."""
        self._group.terminate(5.0)

    def _require_ours(self, python: str, there: str) -> None:
        here = version("pytest-bpf")
        if there == here:
            return
        self.close()
        if not there:
            raise BpfError(
                f"{self._address.name}: {python} has no pytest-bpf; there, pip install "
                f"'pytest-bpf[vm]=={here}', or name another Python: //python=PATH"
            )
        raise BpfError(
            f"{self._address.name} has pytest-bpf {there}, and here is {here}: install the same"
        )

    def _send(self, what: Project) -> str:
        from pytest_bpf.plugin.matrix import sending

        folder: str = self._ask("place", what.key, ANSWER)
        try:
            sending.send(self._gateway, what, folder)
        except hosts.lost() as error:
            raise BpfError(
                f"the project {what.root} could not be sent to {self._address.name}: "
                f"{_last_line(error)}"
            ) from None
        return folder

    def _ask(self, what: str, question: str, timeout: float) -> Any:
        try:
            channel = self._gateway.remote_exec(CALL.format(what))
            channel.send(question)
            return channel.receive(timeout)
        except hosts.lost() as error:
            raise BpfError(f"{self._address.name} does not answer: {_last_line(error)}") from None


def unreachable(names: str, error: Exception) -> BpfError:
    """Return the error of a host with which there is no connection."""
    reason = _last_line(error) or "the connection ended"
    return BpfError(
        f"no worker on {names}: {reason}; it must answer with a Python that has pytest-bpf[vm]"
    )


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1]

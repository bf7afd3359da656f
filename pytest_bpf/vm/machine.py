"""One process of qemu: started, joined by sockets, spoken to, and ended for certain."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys import libc
from pytest_bpf.vm import qemu, streams
from pytest_bpf.vm.qmp import Qmp, QmpError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pytest_bpf.vm.qmp import Command

TAIL = 25
"""Lines of the console that an error shows, at least: a panic is shown from its first line on."""

PANIC = "Kernel panic"

NOISE = re.compile(
    r"^\s*$|\] +(\? |RIP: 0033|RSP: |(?!RIP)[RCD]\w\w?: |Code: |[FGE]S: |PKRU|</?TASK>"
    r"|Modules linked|Hardware)"
)
"""Lines of a kernel's last words that say nothing without its sources: registers, guesses."""


class MachineError(BpfError):
    """A machine that did not start, did not answer or died; the message ends with its console."""


class QemuProcess:
    """A running qemu; a context manager that leaves no process behind.

    It dies with the thread that made it (``PR_SET_PDEATHSIG``), and powers itself off when the
    socket of the port ``control`` is closed.
    """

    def __init__(
        self,
        command: Callable[[qemu.Descriptors], list[str]],
        inherited: Sequence[int] = (),
        *,
        live: bool = False,
    ) -> None:
        pairs = {name: socket.socketpair() for name in ("qmp", *qemu.PORTS)}
        self.sockets = {name: ours for name, (ours, _) in pairs.items()}
        self._console: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (closed by close)
        self._unread = b""
        theirs = {name: end.fileno() for name, (_, end) in pairs.items()}
        console = self._console.fileno()
        if live:
            shown, console = os.pipe()
            streams.tee(shown, self._console.fileno(), 2)
        try:
            self._process = subprocess.Popen(
                command(qemu.Descriptors(theirs, console)),
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=self._console,
                pass_fds=(*theirs.values(), console, *inherited),
                preexec_fn=_bound_to_us(),  # noqa: PLW1509 (one system call, no lock is taken)
                start_new_session=True,
            )
        finally:
            for _, end in pairs.values():
                end.close()
            if live:
                os.close(console)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of qemu."""
        return self._process.pid

    def close(self) -> None:
        """End qemu; safe to call again."""
        self._process.kill()
        self._process.wait()
        for end in self.sockets.values():
            end.close()
        self._console.close()

    def wait(self, timeout: float) -> None:
        """Wait for qemu to end by itself, at most ``timeout`` seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def interrupt(self, timeout: float) -> None:
        """Give its CPUs an NMI, and wait at most ``timeout`` seconds for qemu to end by it.

        Only for a machine that has begun (`begin`).
        """
        with suppress(OSError):
            self.sockets["qmp"].sendall(b'{"execute": "inject-nmi"}\n')
        self.wait(timeout)

    def send(self, **message: object) -> None:
        """Send a line to process 1."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.sockets["control"].sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float) -> dict[str, Any]:
        """Return the next line from process 1.

        Raises `MachineError` when there is none within ``timeout`` seconds, or the machine has
        ended.
        """
        message = self.poll_message(timeout)
        if message is None:
            raise self.error(f"did not answer within {timeout:g} s")
        return message

    def poll_message(self, timeout: float | None) -> dict[str, Any] | None:
        """Return the next line from process 1, or None when ``timeout`` seconds have passed.

        Raises `MachineError` when the machine has ended.
        """
        control = self.sockets["control"]
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._unread:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([control], [], [], left)[0]:
                return None
            try:
                data = control.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                self.wait(1)
                raise self.error("ended by itself")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def begin(self, *commands: Command, descriptor: int) -> Qmp:
        """Have qemu do its first commands, with a descriptor for them; return what they went by.

        Raises `MachineError` for what it refuses.
        """
        talk = Qmp(self.sockets["qmp"])
        with self.refusals():
            talk.begin(*commands, descriptor=descriptor)
        return talk

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Raise `MachineError` for what qemu refuses meanwhile."""
        try:
            yield
        except QmpError as error:
            self.wait(1)
            raise self.error(f"could not be saved or restored ({error})") from None

    def console(self) -> str:
        """Return what qemu and the kernel have printed."""
        size = os.fstat(self._console.fileno()).st_size
        return os.pread(self._console.fileno(), size, 0).decode(errors="replace").replace("\r", "")

    def error(self, what: str) -> MachineError:
        """Return an error that says what happened, how qemu ended, and the console's last lines."""
        code = self._process.poll()
        ended = f" (qemu: {_ending(code)})" if code else ""
        lines = [line for line in self.console().splitlines() if not NOISE.search(line)]
        panics = [number for number, line in enumerate(lines) if PANIC in line]
        shown = lines[min([max(0, len(lines) - TAIL), *panics]) :]
        tail = "".join(f"\n  | {line}" for line in shown) or " it printed nothing"
        return MachineError(f"the virtual machine {what}{ended}; the end of its console:{tail}")


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _bound_to_us() -> Callable[[], None]:
    parent = os.getpid()
    die_with_parent = libc.death_signal()

    def bind() -> None:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return bind

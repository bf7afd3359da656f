"""Run one command in a machine, its streams and its exit status as if it ran here."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError
from pytest_bpf.vm import calls, environment, join, liveness, parameters, qemu, state, streams
from pytest_bpf.vm import terminal as _terminal
from pytest_bpf.vm.command import inline
from pytest_bpf.vm.machine import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_bpf.vm.machine import QemuProcess
    from pytest_bpf.vm.qemu import Machine
    from pytest_bpf.vm.state import SavedState

ANSWER_TIMEOUT = 30.0
"""Seconds in which a restored machine must have mounted this machine's files."""


def start(
    machine: Machine,
    command: Sequence[str],
    writable: Sequence[Path] = (),
    patience: int = parameters.PATIENCE,
    *,
    terminal: bool = False,
    console: bool = False,
) -> QemuProcess:
    """Restore a machine and give it ``command``; a state that does not work is made again, once.

    ``writable`` are folders in which the command's files stay; everything else it writes is gone
    with the machine. ``patience`` is how many seconds the machine may give no sign of life. The
    command has a ``terminal`` where this process has one; what the kernel prints on its ``console``
    is shown on standard error. Raises `BpfError` for a folder that is not there, and `MachineError`
    when there is no machine.
    """
    folders = writable_folders(writable)
    size = _terminal.size() if terminal else None
    try:
        running = restore(obtain(machine), folders, patience, console=console)
    except MachineError as error:
        print(f"pytest-bpf: the saved machine does not work: {error}", file=sys.stderr)  # noqa: T201
        running = restore(obtain(machine, renew=True), folders, patience, console=console)
    give(running, command, str(Path.cwd()), os.environ, size)
    return running


def restore(
    saved: SavedState, writable: Sequence[Path], patience: int, *, console: bool = False
) -> QemuProcess:
    """Restore a machine and give it this machine's files; the rest is as `start` has it."""
    machine = saved.recipe.machine
    changes = parameters.changes(patience, machine.cpus, everything=console)
    with saved, ExitStack() as undo:
        running = undo.enter_context(saved.restore(writable, console=console))
        running.send(**_files(machine, writable), parameters=changes)
        answer = running.receive(ANSWER_TIMEOUT)
        if "failed" in answer:
            raise running.error(answer["failed"])
        undo.pop_all()
    return running


def give(
    running: QemuProcess,
    command: Sequence[str],
    folder: str,
    variables: Mapping[str, str],
    terminal: list[int] | None = None,
) -> None:
    """Have a restored machine run a command in a folder; ``terminal`` is the size of its own."""
    how = inline(command)
    running.send(
        command=list(command),
        inline=how and asdict(how),
        folder=folder,
        environment=environment.selection(variables),
        path=_path(),
        encoding=getattr(sys.stdout, "encoding", "utf-8"),
        terminal=terminal,
        time_ns=time.time_ns(),
    )


def follow(
    machine: Machine,
    running: QemuProcess,
    patience: int = parameters.PATIENCE,
    *,
    terminal: bool = False,
    tell: Callable[[int], object] | None = None,
) -> int:
    """See the command of a running machine through, and return its exit status.

    Standard input, output and error are this process's own, and so is its ``terminal``, if it has
    one. A command that a signal ended gives 128 plus its number. ``tell`` is called with the status
    before the machine ends, which takes a while. Raises `MachineError` when the machine dies or
    hangs; its kernel's last words are in the message.
    """
    with running:
        calls.answer_requests(running.sockets[calls.PORT])
        given = _terminal.given_to(running) if terminal else nullcontext()
        with _forwarding(running), given:
            outputs = {
                name: streams.Output(
                    running.sockets[name], target, partial(running.send, closed=name)
                )
                for name, target in (("out", 1), ("err", 2))
            }
            streams.feed(0, running.sockets["in"])

            def close_output(count: int) -> None:
                outputs["out"].wait(count)
                streams.close(1)

            ended = liveness.wait_exit(running, patience, close_output)
            for name, output in outputs.items():
                output.wait(ended[name])
        code: int = ended["exit"]
        if reason := liveness.kill_reason(code, running.console(), machine.memory):
            print(f"pytest-bpf: {reason}", file=sys.stderr)  # noqa: T201
        status = code if code >= 0 else 128 - code
        if tell:
            tell(status)
    return status


def save(machine: Machine) -> int:
    """Make the machine's saved state when there is none that fits; return the exit status 0."""
    with obtain(machine):
        return 0


def obtain(machine: Machine, *, renew: bool = False) -> SavedState:
    """Return the saved state of a machine whose Python is this one, as `state.obtain` does."""
    return state.obtain(machine, _path(), renew=renew)


def _files(machine: Machine, writable: Sequence[Path]) -> dict[str, Any]:
    kernel = machine.kernel
    return {
        "folders": _elsewhere(f"/lib/modules/{kernel.release}", kernel.modules),
        "links": _elsewhere(f"/boot/config-{kernel.release}", kernel.config),
        "writable": dict(zip(qemu.tags()[1:], map(str, writable), strict=False)),
        "entropy": os.urandom(64).hex(),
    }


def _elsewhere(expected: str, file: Path | None) -> dict[str, str]:
    """Return where a file of the kernel is expected, and where it is, unless there is one."""
    folder, name = os.path.split(expected)
    place = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118 (strings, as JSON has)
    return {place: str(file.resolve())} if file and not os.path.exists(place) else {}  # noqa: PTH110


def _path() -> list[str]:
    """Return ``sys.path`` without what the way this command was started put in front."""
    ours = sys.path if getattr(sys.flags, "safe_path", False) else sys.path[1:]
    return [os.path.abspath(folder) for folder in ours]  # noqa: PTH100 (links stay)


def writable_folders(folders: Sequence[Path]) -> list[Path]:
    """Return folders without links; raise `BpfError` for one that cannot be writable in a guest."""
    if len(folders) > qemu.WRITABLE:
        raise BpfError(f"{len(folders)} writable folders; a machine has {qemu.WRITABLE} at most")
    return [_writable(folder) for folder in folders]


def _writable(folder: Path) -> Path:
    folder_path = folder.resolve()
    if not folder_path.is_dir() or not os.access(folder_path, os.W_OK | os.X_OK):
        raise BpfError(f"cannot make {folder} writable: it is not a folder that you can write to")
    return folder_path


@contextmanager
def _forwarding(running: QemuProcess) -> Iterator[None]:
    """Give the command the signals that come here meanwhile."""

    def forward(number: int, _frame: object) -> None:
        running.send(signal=number)

    before = {number: signal.signal(number, forward) for number in join.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

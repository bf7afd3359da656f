"""A machine that is made ready before its command is known, and waits for that at a socket."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.vm import join, run, streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_bpf.vm.machine import QemuProcess
    from pytest_bpf.vm.qemu import Machine

SAVED = b"saved"
"""What is printed when there is a saved machine; from then on errors go to the log."""


def serve(machine: Machine, place: Path, log: Path, writable: Sequence[Path], patience: int) -> int:
    """Make a machine ready, wait at ``place`` until `join` brings a command; return how that ended.

    Errors go to ``log`` as soon as there is a saved machine, which standard output tells. The rest
    is as `run.start` and `run.follow` have it; but a saved state that does not work is an error:
    who joins starts a machine for itself then, as it does where no socket can be made.
    """
    folders = run.writable_folders(writable)
    with ExitStack() as stack:
        with _listening(place) as listening:
            saved = run.obtain(machine)
            _change_streams(log)
            if listening is None:
                with saved:
                    return 0
            running = stack.enter_context(run.restore(saved, folders, patience))
            other = stack.enter_context(listening.accept()[0])
        brought = _take(other)
        if brought is None:
            return 0
        run.give(running, **brought)
        other.send(join.TAKEN)
        has_ended = threading.Event()
        threading.Thread(target=_obey, args=(other, running, has_ended), daemon=True).start()

        def tell(status: int) -> None:
            has_ended.set()
            with suppress(OSError):  # nobody is there any more
                other.send(bytes([status]))

        return run.follow(machine, running, patience, tell=tell)


def _take(other: socket.socket) -> dict[str, Any] | None:
    """Take the streams of who joins; return its command, folder and variables.

    None is for who has gone, or whose Python would be started with other settings than this one.
    """
    _, descriptors, _, _ = socket.recv_fds(other, 1, 3)
    if not descriptors:
        return None
    request, *given = descriptors
    with open(request, closefd=True) as file:  # noqa: PTH123 (a descriptor)
        file.seek(0)
        brought: dict[str, Any] = json.load(file)
    is_taken = _is_same_python(brought["variables"])
    for number, stream in enumerate(given):
        if is_taken:
            os.dup2(stream, number)
        os.close(stream)
    return brought if is_taken else None


@contextmanager
def _listening(place: Path) -> Iterator[socket.socket | None]:
    """Make the socket; None where the file system has none."""
    with socket.socket(socket.AF_UNIX) as listening:
        name, folder = join.address(str(place))
        try:
            listening.bind(name)
            listening.listen()
        except OSError:
            name = ""
        finally:
            os.close(folder)
        try:
            yield listening if name else None
        finally:
            place.unlink(missing_ok=True)


def _change_streams(log: Path) -> None:
    """Say that there is a saved machine; from now on nobody but the log hears more."""
    os.write(1, SAVED)
    streams.close(1)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _is_same_python(variables: dict[str, str]) -> bool:
    """Say whether Python would be started here as it was: its path is known to the machine."""
    before, now = (
        {name: value for name, value in some.items() if name.startswith("PYTHON")}
        for some in (dict(os.environ), variables)
    )
    return before == now


def _obey(other: socket.socket, running: QemuProcess, has_ended: threading.Event) -> None:
    """Pass on the signals that come to who joined; end with it before the command ``has_ended``."""
    while number := other.recv(1):
        running.send(signal=number[0])
    if not has_ended.is_set():
        os._exit(join.FAILED)  # the machine dies with this process

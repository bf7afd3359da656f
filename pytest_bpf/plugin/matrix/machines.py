"""The machines of workers: the commands that start them, their last words, and their compiler."""

from __future__ import annotations

import shlex
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.plugin.matrix import hosts

if TYPE_CHECKING:
    import execnet
    from xdist.workermanage import WorkerController

    from pytest_bpf.plugin.matrix.choices import KernelChoice
    from pytest_bpf.plugin.matrix.waiting import WaitingMachine

TAIL = 16_384
"""Bytes of a dead machine's last words that a report shows at most."""

REDIRECT = 'exec 2>>"$1"; shift; exec "$@"'
"""For ``sh -c``: a command whose errors go to a file; pytest captures those of this process."""


class Machines:
    """Starts workers in machines; what these say is kept in files, here in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._session = uuid.uuid4().hex[:12]
        self._logs: dict[str, str] = {}
        self._read: dict[str, int] = {}

    def equip(
        self,
        spec: execnet.XSpec,
        kernel: KernelChoice,
        number: int,
        waiting: WaitingMachine | None = None,
    ) -> None:
        """Give a worker the command of its machine, and the host that has it.

        It joins the machine that is ``waiting``; a worker that takes its place has one of its own.
        """
        folder = f"{kernel.logs}/{self._session}" if kernel.host else str(self._folder)
        log = f"{folder}-{number}.log" if kernel.host else f"{folder}/{number}.log"
        if waiting:
            log = str(waiting.log)
        command = [*kernel.command, "--or-here", "--", kernel.python]
        spec.via = kernel.host.address.gateway_id if kernel.host else None
        joining = waiting.join_command() if waiting else []
        spec.python = shlex.join([*joining, "sh", "-c", REDIRECT, "sh", log, *command])
        self._logs[spec.python] = log

    def last_words(self, node: WorkerController, kernel: KernelChoice) -> str:
        """Return what a machine's command has printed since this was asked last."""
        log = self._logs[str(node.gateway.spec.python)]
        start = self._read.get(log, 0)
        if kernel.host:
            output = hosts.read(node, kernel.host.address, log, start)
        else:
            output = Path(log).read_bytes()[start:] if Path(log).exists() else b""
        self._read[log] = start + len(output)
        return output[-TAIL:].decode(errors="replace").strip()


def compiling(channel: execnet.Channel, sent: tuple[str, str] | None) -> execnet.Channel:
    """Answer on ``channel`` what a worker wants compiled, each time in a thread of its own.

    ``sent`` are the folders of the project here and there, where they are two.
    """
    here, there = sent or ("", "")

    def respond(request: dict[str, Any]) -> None:
        from pytest_bpf.compile import remote

        if sent:
            request |= {"include_dirs": [_moved(f, there, here) for f in request["include_dirs"]]}
            if request["content"] is not None:
                request["source"] = _moved(request["source"], there, here)
        answer = remote.answer(request)
        if sent and "source" in answer:
            answer["source"] = _moved(answer["source"], here, there)
        with suppress(OSError):
            channel.send(answer)

    def hear(request: dict[str, Any]) -> None:
        threading.Thread(target=respond, args=(request,), daemon=True).start()

    channel.setcallback(hear)
    return channel


def _moved(path: str, source: str, target: str) -> str:
    """Return a path below one folder as one below another; others stay.

    >>> _moved("/there/a.bpf.c", "/there", "/here"), _moved("/thereby", "/there", "/here")
    ('/here/a.bpf.c', '/thereby')
    """
    inside = path == source or path.startswith(f"{source}/")
    return f"{target}{path.removeprefix(source)}" if inside else path

"""Process 1 of the machine: makes it ready, says so, and gives the one command it gets to run.

Talks to the host in lines of JSON on the port ``control``. The command's streams are the ports
``in``, ``out`` and ``err``, each joined to a pipe by a thread: a program sees ordinary pipes.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

MACHINE = "/machine.json"
LACKS = "pytest-bpf: this kernel lacks "
CHUNK = 1 << 16

PORTS = ("control", "in", "out", "err")
"""The ports of process 1; one more, ``compile``, is for the command."""


def main() -> NoReturn:
    """Boot, then serve; never return."""
    machine = json.loads(Path(MACHINE).read_text())
    sys.path[:] = machine["path"]
    from pytest_bpf.vm.guest import root, system  # noqa: PLC0415 (the path is known only now)

    root.mount_own()
    for module in machine["modules"]:
        try:
            system.load_module(module)
        except OSError as error:
            print(f"pytest-bpf: {error}", flush=True)  # noqa: T201 (the console)
    if lacking := root.lacking():
        print(f"{LACKS}{', '.join(lacking)}", flush=True)  # noqa: T201 (the console)
        end()
    system.bring_up("lo")
    ports = open_ports()
    mine, theirs = socket.socketpair()
    waiting = os.fork()
    if waiting == 0:
        from pytest_bpf.vm.guest import command  # noqa: PLC0415 (not in process 1)

        for port in ports.values():
            os.close(port)
        mine.close()
        command.wait(theirs)
    theirs.close()
    mine.recv(1)
    system.set_parameters(machine["parameters"])
    ReadyMachine(ports, mine, waiting).serve()


def open_ports() -> dict[str, int]:
    """Open the virtio ports, by the names that the host gave them."""
    folder = Path("/sys/class/virtio-ports")
    while not folder.exists() or len(list(folder.iterdir())) < len(PORTS) + 1:
        time.sleep(0.01)
    named = {(port / "name").read_text().strip(): port.name for port in folder.iterdir()}
    return {name: os.open(f"/dev/{named[name]}", os.O_RDWR) for name in PORTS}


class ReadyMachine:
    """The machine from the moment it is ready: one command, its streams, its end."""

    def __init__(self, ports: dict[str, int], warm: socket.socket, child: int) -> None:
        from pytest_bpf.vm.guest import root, system  # noqa: PLC0415

        self._ports = ports
        self._warm = warm
        self._child = child
        self._libraries = root.libraries(child)
        self._control = os.fdopen(ports["control"], "rb", buffering=CHUNK, closefd=False)
        self._sent = {"out": 0, "err": 0}
        self._closed: set[str] = set()
        self._terminal: int | None = None
        self._saying = threading.Lock()
        self._started = threading.Event()
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        mine, self._streams = system.open_pipes()
        self._input = mine[0]
        self._pumps = [
            threading.Thread(target=self._drain, args=(name, pipe), daemon=True)
            for pipe, name in zip(mine[1:], ("out", "err"), strict=True)
        ]

    def serve(self) -> NoReturn:
        """Say that all is ready (here the state is saved), take files, then a command; see it end.

        The command may come much later than the files. What can be there before is: starting a
        thread takes a restored machine milliseconds.
        """
        for pump in self._pumps:
            pump.start()
        for wait in (self._feed, self._reap, self._hear, self._finish):
            threading.Thread(target=wait, daemon=True).start()
        self._say(ready=True)
        if line := self._control.readline():
            new_root = self._enter(json.loads(line))
            if line := self._control.readline():
                self._start(new_root, json.loads(line), line)
                self._obey()
        end()

    def _enter(self, files: dict[str, Any]) -> int:
        """Make the host's files the root; return a descriptor of it."""
        from pytest_bpf.vm.guest import root, system  # noqa: PLC0415

        system.add_entropy(bytes.fromhex(files["entropy"]))
        system.set_parameters(files["parameters"])
        try:
            own = self._libraries
            new_root = root.enter(files["writable"], files["folders"], files["links"], own)
        except OSError as error:
            self._say(failed=f"cannot mount {error.filename}: {error.strerror}")
            end()
        self._say(mounted=True)
        return new_root

    def _start(self, new_root: int, request: dict[str, Any], line: bytes) -> None:
        from pytest_bpf.vm.guest import system  # noqa: PLC0415

        time.clock_settime_ns(time.CLOCK_REALTIME, request["time_ns"])
        message = os.memfd_create("request")
        os.write(message, line)
        if request["terminal"]:  # instead of the pipes, whose pumps see no end
            self._terminal, mine, self._streams = system.open_terminal(*request["terminal"])
            self._input = mine[0]
            self._pumps = [threading.Thread(target=self._drain, args=("out", mine[1]))]
            self._pumps[0].start()
        self._started.set()
        theirs = [new_root, message, *self._streams]
        socket.send_fds(self._warm, [b"!"], theirs)
        for descriptor in theirs:
            os.close(descriptor)

    def _finish(self) -> None:
        """Wait for the end of the command; say so when its output is out."""
        code = self._ended.get()
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        for pump in self._pumps:
            pump.join()
        os.sync()
        self._say(exit=code, **self._sent)

    def _feed(self) -> None:
        with suppress(OSError):
            while data := os.read(self._ports["in"], CHUNK):
                self._started.wait()  # the input may be a terminal
                _write(self._input, data)
        self._started.wait()
        os.close(self._input)

    def _drain(self, name: str, pipe: int) -> None:
        with suppress(OSError):  # of a terminal that nobody has any more
            while (data := os.read(pipe, CHUNK)) and name not in self._closed:
                _write(self._ports[name], data)
                self._sent[name] += len(data)
        os.close(pipe)
        self._say(over=name, count=self._sent[name])

    def _obey(self) -> None:
        while line := self._control.readline():
            message = json.loads(line)
            self._closed.add(message.get("closed"))
            if "alive" in message:
                self._say(alive=True)
            if "size" in message and self._terminal is not None:
                from pytest_bpf.vm.guest import system  # noqa: PLC0415

                system.resize(self._terminal, *message["size"])
            with suppress(ProcessLookupError):
                os.killpg(self._child, message.get("signal", 0))

    def _reap(self) -> None:
        """Wait for the end of each process; one that had nobody else is a child of this one."""
        with suppress(ChildProcessError):
            while True:
                child, status = os.wait()
                if child == self._child:
                    self._ended.put(os.waitstatus_to_exitcode(status))

    def _hear(self) -> None:
        """Take the exit status of a command that says so before it ends."""
        if said := self._warm.recv(1):
            self._ended.put(said[0])

    def _say(self, **message: object) -> None:
        with self._saying:
            _write(self._ports["control"], json.dumps(message).encode() + b"\n")


def end() -> NoReturn:
    """End the machine."""
    from pytest_bpf.vm.guest import system  # noqa: PLC0415

    while True:
        system.power_off()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main()

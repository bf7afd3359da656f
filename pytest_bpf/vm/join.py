"""A worker's process here: it gives what it has to a machine that waits; run as a script.

``join.py SOCKET COMMAND... -- WORDS...``: the machine that waits at the socket runs WORDS for the
first one that comes. For every other, or when it has ended, all of COMMAND is run in this process's
place. This imports little: it is a part of how long a session takes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

TAKEN = b"t"
"""What the machine answers when it runs the command; the next byte is the exit status."""

FAILED = 125
"""The exit status when there was no machine, or it died."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What is passed on to the command, each as a byte."""


def address(place: str) -> tuple[str, int]:
    """Return a name of the socket, however long its path is, and a descriptor to be closed."""
    folder, _, name = place.rpartition("/")
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    return f"/proc/self/fd/{descriptor}/{name}", descriptor


def main(place: str, *command: str) -> int:
    """Join the machine that waits at ``place``, or run ``command``; return the exit status."""
    with socket.socket(socket.AF_UNIX) as machine:
        if not _is_taken(machine, place, command[command.index("--") + 1 :]):
            os.execvp(command[0], command)  # noqa: S606 (the same, by itself)
        for number in range(2):
            os.close(number)  # the machine's process has them
        for number in SIGNALS:
            signal.signal(number, lambda number, _: machine.send(bytes([number])))
        status = machine.recv(1)
    return status[0] if status else FAILED


def _is_taken(machine: socket.socket, place: str, command: tuple[str, ...]) -> bool:
    """Give the machine a command, and the streams, the folder and the variables of this process."""
    own = {"folder": os.getcwd(), "variables": dict(os.environ)}  # noqa: PTH109
    request = os.memfd_create("request")
    with os.fdopen(request, "w") as file:
        json.dump({"command": command, **own}, file)
        file.flush()
        try:
            name, folder = address(place)
            machine.connect(name)
            os.close(folder)
            socket.send_fds(machine, [b"!"], [request, 0, 1])
            return machine.recv(1) == TAKEN
        except OSError:
            return False


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

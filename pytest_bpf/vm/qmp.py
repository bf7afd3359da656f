"""qemu's protocol QMP, as much of it as a machine needs: a line of JSON each way.

The commands may be written before qemu is up, so a machine is restored as soon as it is. A client
that is imported first, and then greets it, takes longer than qemu's own start.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Command = dict[str, Any]

GREETING: Command = {"execute": "qmp_capabilities"}


class QmpError(Exception):
    """What qemu answers to a command that it refuses, or why there is no answer."""


class Qmp:
    """Talks with one qemu over a socket."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._unread = b""

    def begin(self, *commands: Command, descriptor: int) -> None:
        """Say the first commands, give qemu a descriptor for them, and wait for the answers.

        Raises `QmpError` for what is refused, and when qemu ends.
        """
        lines = b"".join(json.dumps(each).encode() + b"\n" for each in (GREETING, *commands))
        answers = 0
        try:
            socket.send_fds(self._channel, [lines], [descriptor])
        except OSError as error:
            raise QmpError(f"qemu does not listen: {error.strerror}") from None
        for message in self._messages():
            if "error" in message:
                raise QmpError(message["error"]["desc"])
            answers += "return" in message
            if answers > len(commands):
                return

    def wait_migrated(self) -> None:
        """Wait for the end of a migration; raise `QmpError` when it fails."""
        for message in self._messages():
            if message.get("event") == "MIGRATION":
                status = message["data"]["status"]
                if status == "completed":
                    return
                if status in {"failed", "cancelled"}:
                    raise QmpError(f"the migration {status}")

    def _messages(self) -> Iterator[Mapping[str, Any]]:
        while True:
            while b"\n" not in self._unread:
                try:
                    data = self._channel.recv(1 << 16)
                except OSError:
                    data = b""
                if not data:
                    raise QmpError("qemu has ended")
                self._unread += data
            line, _, self._unread = self._unread.partition(b"\n")
            yield json.loads(line)

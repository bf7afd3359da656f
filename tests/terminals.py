"""A command on a terminal of its own, as a person starts it: keys go in, and text is waited for."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

TIMEOUT = 300.0
"""Seconds to wait for a text at most; a machine may have to be saved before."""

COLOURS = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]")


class Terminal:
    """Runs ``command`` on a new terminal; leaving the block ends it."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
        self._text = ""
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (one call)
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._ours, f"{line}\r".encode())

    def expect(self, pattern: str) -> str:
        """Wait for a text, and return what came until its end; the next search begins there."""
        deadline = time.monotonic() + TIMEOUT
        while not (match := re.search(pattern, self._text)):
            left = deadline - time.monotonic()
            ready = select.select([self._ours], [], [], max(0, left))[0]
            data = b""
            with suppress(OSError):  # nobody has the terminal any more
                data = os.read(self._ours, 1 << 16) if ready else b""
            assert data, f"no {pattern!r} came, but:\n{self._text}"
            self._text += COLOURS.sub("", data.decode(errors="replace")).replace("\r", "")
        seen, self._text = self._text[: match.end()], self._text[match.end() :]
        return seen

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        deadline = time.monotonic() + TIMEOUT
        with suppress(OSError):
            while select.select([self._ours], [], [], max(0, deadline - time.monotonic()))[0]:
                self._text += os.read(self._ours, 1 << 16).decode(errors="replace")
        return self._process.wait(max(1, deadline - time.monotonic()))

"""What an agent prints."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CAPACITY, MOST = 1 << 20, 64 << 20
"""Bytes of output that are kept, the last ones: usually, and while all of it is to be read."""

SHOWN_LINES = 10
"""How many lines an error shows."""


class Log:
    """Reads the descriptor of a pipe to its end in a thread of its own, and closes it then."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._text = bytearray()
        self._dropped = 0
        self._capacity = CAPACITY
        self._change = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="pytest-bpf agent", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """What was printed so far, as much of it as is kept."""
        with self._change:
            return self._text.decode(errors="replace")

    @property
    def position(self) -> int:
        """How many bytes were printed so far; see `since`."""
        with self._change:
            return self._dropped + len(self._text)

    def since(self, position: int) -> tuple[str, int]:
        """Return what was printed after a position, and how many bytes of it are not kept."""
        with self._change:
            text = self._text[max(0, position - self._dropped) :]
            return text.decode(errors="replace"), max(0, self._dropped - position)

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Keep `MOST` bytes meanwhile."""
        self._capacity = MOST
        try:
            yield
        finally:
            self._capacity = CAPACITY

    @property
    def tail(self) -> str:
        """The last lines, indented, as errors show them; empty when nothing was printed."""
        lines = self.text.rstrip().splitlines()
        if not lines:
            return "; it printed nothing"
        shown = "\n".join(f"    {line}" for line in lines[-SHOWN_LINES:])
        return f"; its output{' ends with' if len(lines) > SHOWN_LINES else ''}:\n{shown}"

    def wait_for(self, pattern: str, timeout: float) -> bool:
        """Wait until a regular expression matches; say whether it does."""
        deadline = time.monotonic() + timeout
        regex = re.compile(pattern.encode(), re.MULTILINE)
        with self._change:
            while not regex.search(self._text):
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    return False
                self._change.wait(left)
        return True

    def close(self, timeout: float = 2.0) -> None:
        """Wait until the other end is closed."""
        self._thread.join(timeout)

    def _read(self) -> None:
        with os.fdopen(self._pipe, "rb", buffering=0) as pipe:
            while chunk := pipe.read(1 << 16):
                self._append(chunk)
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _append(self, chunk: bytes) -> None:
        with self._change:
            self._text += chunk
            excess = len(self._text) - self._capacity
            if excess > 0:
                del self._text[:excess]
                self._dropped += excess
            self._change.notify_all()

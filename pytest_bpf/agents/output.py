"""What an agent prints, kept while it runs."""

from __future__ import annotations

import os
import re
import threading
import time

KEPT = 1 << 20
"""Bytes of output that are kept, the last ones."""

SHOWN_LINES = 10
"""How many lines an error shows."""


class Output:
    """Reads the descriptor of a pipe to its end in a thread of its own, and closes it then."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._kept = bytearray()
        self._dropped = 0
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="pytest-bpf agent", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """What was printed so far, at most the last `KEPT` bytes of it."""
        with self._changed:
            return self._kept.decode(errors="replace")

    @property
    def position(self) -> int:
        """How many bytes were printed so far; see `since`."""
        with self._changed:
            return self._dropped + len(self._kept)

    def since(self, position: int) -> str:
        """Return what was printed after a position."""
        with self._changed:
            return self._kept[max(0, position - self._dropped) :].decode(errors="replace")

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
        sought = re.compile(pattern.encode(), re.MULTILINE)
        with self._changed:
            while not sought.search(self._kept):
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    return False
                self._changed.wait(left)
        return True

    def close(self, patience: float = 2.0) -> None:
        """Wait until the other end is closed."""
        self._thread.join(patience)

    def _read(self) -> None:
        with os.fdopen(self._pipe, "rb", buffering=0) as pipe:
            while chunk := pipe.read(1 << 16):
                self._keep(chunk)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _keep(self, chunk: bytes) -> None:
        with self._changed:
            self._kept += chunk
            excess = len(self._kept) - KEPT
            if excess > 0:
                del self._kept[:excess]
                self._dropped += excess
            self._changed.notify_all()

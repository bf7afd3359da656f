"""Whether a machine still lives: what this side asks, and how it ends."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.vm.machine import QemuProcess

LAST_WORDS = 5.0
"""Seconds that a kernel gets to say where it hangs."""

ENDING = 5.0
"""Seconds after the end of its output in which a command has ended, if it does."""

OUT_OF_MEMORY = re.compile(r"Out of memory: Killed process \d+ \(\S+\)")


def wait_exit(running: QemuProcess, patience: int, over: Callable[[int], None]) -> dict[str, Any]:
    """Wait for the command's end and return how it ended.

    ``over`` is called when nobody there has the command's standard output any more, with the count
    of its bytes, but the command does not end. A machine that is silent is asked whether it is
    alive: a command may take as long as it likes.
    Raises `MachineError` when there has been no answer for ``patience`` seconds (0: for ever).
    """
    asked = False
    count: int | None = None
    while True:
        wait = patience / 2 if patience > 0 else None
        message = running.poll_message(ENDING if count is not None else wait)
        if message and "exit" in message:
            return message
        if message and message.get("over") == "out":
            count = message["count"]
        elif not message and count is not None:
            over(count)
            count = None
            continue
        if asked and not message:
            running.interrupt(LAST_WORDS)
            raise running.error(f"hangs: it gave no sign of life for {patience} s")
        asked = not message
        if asked:
            running.send(alive=True)


def kill_reason(code: int, console: str, memory: int) -> str | None:
    """Return why a command was killed, when its kernel had run out of ``memory`` MiB."""
    match = OUT_OF_MEMORY.search(console) if code == -signal.SIGKILL else None
    return f"the machine's memory of {memory} MiB is full: {match[0]}" if match else None

"""Whether a machine still lives: what its kernel has to watch, what this side asks, and its end."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_bpf.vm.machine import Running

PATIENCE = 60
"""Seconds after which a machine that gives no sign of life hangs, if nothing else is asked for."""

OUT_OF_MEMORY = re.compile(r"Out of memory: Killed process \d+ \(\S+\)")


def parameters(patience: int, *, exact: bool) -> dict[str, str]:
    """Return what the guest's kernel is told (``/proc/sys/kernel``), so that it says what hangs.

    It names a program that does not let go of a CPU (a soft lockup) within half of ``patience``,
    and ends itself when a task waits uninterruptibly for all of it. An ``exact`` machine's seconds
    are longer than this side's, and so it watches more closely.
    """
    if patience <= 0:
        return {}
    return {
        "printk": "5",
        "watchdog_thresh": str(1 if exact else min(60, max(1, patience // 6))),
        "hung_task_panic": "1",
        "hung_task_check_interval_secs": str(max(1, patience // 4)),
        "hung_task_timeout_secs": str(patience),
    }


def until_exit(running: Running, patience: int) -> dict[str, Any]:
    """Wait for the command's end and return how it ended.

    A machine that is silent is asked whether it is alive: a command may take as long as it likes.
    Raises `MachineError` when there has been no answer for ``patience`` seconds (0: for ever).
    """
    asked = False
    while True:
        message = running.listen(patience / 2 if patience > 0 else None)
        if message and "exit" in message:
            return message
        if asked and not message:
            raise running.error(f"hangs: it gave no sign of life for {patience} s")
        asked = not message
        if asked:
            running.say(alive=True)


def why_killed(code: int, console: str, memory: int) -> str | None:
    """Return why a command was killed, when its kernel had run out of ``memory`` MiB."""
    found = OUT_OF_MEMORY.search(console) if code == -signal.SIGKILL else None
    return f"the machine's memory of {memory} MiB is full: {found[0]}" if found else None

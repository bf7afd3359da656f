"""This process's terminal, given to the command of a machine: each key goes there at once."""

from __future__ import annotations

import os
import signal
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.vm.machine import QemuProcess


def size() -> list[int] | None:
    """Return the rows and columns of the terminal on standard input; None when it is none."""
    if not os.isatty(0):
        return None
    columns, rows = os.get_terminal_size(0)
    return [rows, columns]


@contextmanager
def given_to(running: QemuProcess) -> Iterator[None]:
    """Pass every key on, Ctrl-C too, and each new size; the terminal is as before at the end."""
    if not os.isatty(0):
        yield
        return

    def resize(_number: int, _frame: object) -> None:
        running.send(size=size())

    attributes = termios.tcgetattr(0)
    handler = signal.signal(signal.SIGWINCH, resize)
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, attributes)
        signal.signal(signal.SIGWINCH, handler)

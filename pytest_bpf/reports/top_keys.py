"""The keys of ``pytest-bpf top`` on a terminal: what to sort by, what to show, the end."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.costs.instruments.activity import MapActivity, ProgramActivity

SORT_KEYS = {"c": "cpu", "r": "runs", "t": "ns", "m": "memory", "n": "name", "i": "id"}
"""What each key sorts by."""

HELP = "sort by c cpu, r runs, t time of a run, m memory, n name, i id;  / filter;  q quit"

ENTER, ESCAPE, ERASE = ("\r", "\n"), "\x1b", ("\x7f", "\b")


@dataclass(frozen=True)
class View:
    """What is shown: sorted by ``sort``, of what has ``text`` in its name, type or place.

    While ``typing``, keys are letters of ``text``.
    """

    sort: str
    text: str = ""
    typing: bool = False
    ended: bool = False

    def press(self, key: str) -> View:
        """Return the view after a key.

        >>> view = View("cpu").press("/").press("x").press("d").press("p")
        >>> (view.text, view.typing, view.press(ENTER[0]).press("m").sort)
        ('xdp', True, 'memory')
        """
        if self.typing:
            if key in ENTER:
                return replace(self, typing=False)
            if key == ESCAPE:
                return replace(self, typing=False, text="")
            if key in ERASE:
                return replace(self, text=self.text[:-1])
            return replace(self, text=self.text + key) if key.isprintable() else self
        if key == "/":
            return replace(self, typing=True, text="")
        if key == "q":
            return replace(self, ended=True)
        return replace(self, sort=SORT_KEYS.get(key, self.sort))

    def shows(self, one: ProgramActivity | MapActivity) -> bool:
        """Say whether a program or a map is among what is shown."""
        places = getattr(one, "attached", ())
        return any(self.text in text for text in (one.name, one.type, *places))

    @property
    def footer(self) -> str:
        """The line below the tables."""
        if self.typing or self.text:
            return f"filter: {self.text}{'_' if self.typing else ''}   ({HELP})"
        return HELP


@contextmanager
def keys() -> Iterator[Callable[[float], Iterator[str]]]:
    """Yield what waits so many seconds, and yields the keys that are pressed meanwhile.

    They are read one by one, without echo, and the terminal is put back at the end. Where standard
    input is no terminal there are none.
    """
    fd = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1
    if fd < 0:
        yield _none
        return
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield partial(_pressed, fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _none(seconds: float) -> Iterator[str]:
    time.sleep(seconds)
    yield from ()


def _pressed(fd: int, seconds: float) -> Iterator[str]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            pressed = os.read(fd, 64).decode(errors="replace")
            yield from pressed or "q"  # nothing: the terminal is gone

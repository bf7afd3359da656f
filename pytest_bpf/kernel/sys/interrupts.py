"""Ctrl-C where its exception would be lost: while a C library calls back, and in a finalizer."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # below `signal`, which makes enums of numbers
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NUMBERS = (int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGHUP))

AGAIN = 0.05
"""Seconds until a signal that was lost is sent again; a finalizer takes less."""


def call_uninterrupted(function: Callable[..., Any], *args: object) -> Any:
    """Call a C function that calls back into Python; signals are handled when it has returned.

    Python runs a signal's handler at its next bytecode. In a callback of ctypes what the handler
    raises, `KeyboardInterrupt` above all, is printed and forgotten: libbpf calls back hundreds of
    times in a load, to log. Signals are for the main thread; in another nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return function(*args)
    received: list[int] = []
    handlers: dict[int, Callable[..., Any]] = {
        number: handler for number in NUMBERS if callable(handler := _signal.getsignal(number))
    }

    def note(number: int, _frame: object) -> None:
        received.append(number)

    try:
        for number in handlers:
            _signal.signal(number, note)
        return function(*args)
    finally:
        for number, handler in handlers.items():
            _signal.signal(number, handler)
        for number in received:
            handlers[number](number, None)


@contextmanager
def lost_sent_again(number: Callable[[], int]) -> Iterator[None]:
    """Send a signal again whose `KeyboardInterrupt` came in a finalizer, where Python forgets it.

    ``number`` makes ready for it, and returns which one it is.
    """
    process, report = os.getpid(), sys.unraisablehook

    def send_again(unraisable: sys.UnraisableHookArgs) -> None:
        lost = unraisable.exc_type is KeyboardInterrupt and os.getpid() == process
        if not lost:
            report(unraisable)
            return
        later = threading.Timer(AGAIN, os.kill, (process, number()))
        later.daemon = True
        later.start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        if sys.unraisablehook is send_again:
            sys.unraisablehook = report

"""Ctrl-C while a C library calls back into Python: an exception there would be lost."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))
    }

    def note(number: int, _frame: object) -> None:
        received.append(number)

    try:
        for number in handlers:
            signal.signal(number, note)
        return function(*args)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received:
            handlers[number](number, None)

"""SIGTERM and SIGHUP end a session as Ctrl-C does, and none of them is lost."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys.interrupts import lost_sent_again

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def end_as_interrupted() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for `SIGNALS` meanwhile, once; what else handles one stays.

    Python forgets an exception that is raised in a finalizer or in a callback of a C library, and
    tests go on as if nobody had pressed Ctrl-C. Such a signal is sent again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()
    handled = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    received: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        if os.getpid() != process:  # a library's fork: the signal is to end it, and it alone
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not received:  # a second one must not disturb the cleaning up
            received.append(number)
            raise KeyboardInterrupt

    for number in handled:
        signal.signal(number, interrupt)
    try:
        with lost_sent_again(lambda: received.pop() if received else signal.SIGINT):
            yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)

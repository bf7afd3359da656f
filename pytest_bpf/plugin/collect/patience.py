"""A limit on how long a test in C runs: nothing can end a BPF program from outside."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from pytest_bpf.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

SECONDS = 60.0
"""How long one run of a program may take."""


def within_limit(what: str, run: Callable[[], T]) -> T:
    """Return what ``run`` returns, from a thread of its own; raise what it raises.

    Raises `RunError` when that takes longer than `SECONDS`; the thread goes on until the program
    ends.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(run())
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            errors.append(error)

    thread = threading.Thread(target=work, name=f"pytest-bpf: {what}", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        raise RunError(
            f"{what} has been running for {SECONDS:g} s and still does: nothing can end a BPF "
            "program from outside, so pytest goes on, and ends when the program has ended"
        )
    if errors:
        raise errors[0]
    return results[0]

"""Work that is shared by processes: each is a fork, whose result comes through a pipe."""

from __future__ import annotations

import os
import pickle
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from pytest_bpf.errors import RunError
from pytest_bpf.kernel.sys import names, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")


class Workers(Generic[T]):
    """Processes at work; `results` waits for them."""

    def __init__(self) -> None:
        self._running: dict[int, int] = {}

    def start(self, work: Callable[[], T]) -> None:
        """Begin with some work in a process of its own."""
        reader, writer = os.pipe()
        child = processes.fork()  # threads of pytest's plugins are not used there
        if not child:
            _work(work, writer)
        os.close(writer)
        self._running[child] = reader

    def results(self) -> list[T]:
        """Return what each found, in the order of their starts.

        Raises `RunError` for one that failed.
        """
        results: list[T] = []
        for number, (child, reader) in enumerate(list(self._running.items()), 2):
            with os.fdopen(reader, "rb") as pipe:
                raw = pipe.read()
            _, status = os.waitpid(child, 0)
            del self._running[child]
            if not raw:
                raise RunError(f"process {number} ended with status {status} and told nothing")
            good, result = pickle.loads(raw)  # noqa: S301
            if not good:
                raise RunError(f"process {number} failed: {result}")
            results.append(result)
        return results

    def stop(self) -> None:
        """End those that still work."""
        for child, reader in self._running.items():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
        self._running.clear()


@contextmanager
def workers(work: Sequence[Callable[[], T]]) -> Iterator[Workers[T]]:
    """Share work with other processes, which have ended afterwards."""
    team: Workers[T] = Workers()
    cpus = sorted(os.sched_getaffinity(0))
    try:
        for number, one in enumerate(work, 1):
            team.start(_on_cpu(cpus[number % len(cpus)], one))
        yield team
    finally:
        team.stop()


def _on_cpu(cpu: int, work: Callable[[], T]) -> Callable[[], T]:
    def run() -> T:
        os.sched_setaffinity(0, {cpu})
        return work()

    return run


def _work(work: Callable[[], object], writer: int) -> None:
    """Do the work in this process, which ends with it; what it made goes, its parent's stays."""
    status = 1
    try:
        try:
            result: object = (True, work())
        except BaseException as error:  # noqa: BLE001 (told to the process that waits)
            result = (False, f"{type(error).__name__}: {error}")
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(result, pipe)
        status = 0
    finally:
        names.remove_claims()
        os._exit(status)

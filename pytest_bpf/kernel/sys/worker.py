"""A thread that does jobs for others: what belongs to a thread (its namespaces) belongs to it."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from pytest_bpf.errors import PlaceError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that `Workers.close` waits for jobs that still run."""


class Job(Generic[T]):
    """A function to be called by a worker, and the way its outcome comes back."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._done: SimpleQueue[None] = SimpleQueue()
        self._value: T
        self._error: BaseException | None = None

    def do(self) -> None:
        """Call the function, in the worker's thread."""
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._error = error
        self._done.put(None)

    def wait(self) -> None:
        """Wait, once, until the function has returned or raised."""
        self._done.get()

    def result(self) -> T:
        """Return what the function returned, or raise what it raised, after `wait`."""
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame


class Worker:
    """One daemon thread that does one job after another; ``place`` names it in messages."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=_serve, args=(self._jobs,), name=f"pytest-bpf {place}", daemon=True
        )
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> Job[T]:
        """Let the thread call ``call`` after the jobs it has."""
        job = Job(call)
        self._jobs.put(job)
        return job

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in the thread: return or raise what it does."""
        job = self.submit(lambda: function(*args, **kwargs))
        job.wait()
        return job.result()

    def current(self) -> bool:
        """Say whether the caller is this thread."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """Tell the thread to end after the jobs it has."""
        self._jobs.put(None)

    def join(self, timeout: float) -> bool:
        """Wait for the end, and say whether it came; at once in the thread itself."""
        if not self.current():
            self._thread.join(timeout)
        return self.current() or not self._thread.is_alive()


class Workers:
    """The threads of one place: one, and as many more as there are jobs at the same time.

    ``first`` is in the place already, ``enter`` brings another thread there.
    """

    def __init__(self, first: Worker, enter: Callable[[], object]) -> None:
        self.place = first.place
        self._enter = enter
        self._closed = False
        self._lock = threading.Lock()
        self._all = [first]
        self._idle = [first]

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in a thread of the place: return or raise what it does.

        A job may call this itself, and stays in its thread. Ctrl-C ends the wait, not the job.
        Raises `PlaceError` after `close`.
        """
        if any(worker.current() for worker in tuple(self._all)):
            return function(*args, **kwargs)
        worker = self._take()
        job = worker.submit(lambda: function(*args, **kwargs))
        job.wait()
        self._idle.append(worker)
        return job.result()

    def _take(self) -> Worker:
        with self._lock:
            if self._closed:
                raise PlaceError(f"{self.place} is closed, nothing can run in it; make a new one")
            if self._idle:
                return self._idle.pop()
            worker = Worker(self.place)
            self._all.append(worker)
        worker.run(self._enter)
        return worker

    def close(self) -> None:
        """End the threads; raise `PlaceError` when a job does not return. Repeatable."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for worker in self._all:
            worker.end()
        deadline = time.monotonic() + PATIENCE
        stuck = [w for w in self._all if not w.join(max(0.0, deadline - time.monotonic()))]
        self._idle.clear()
        if stuck:
            raise PlaceError(
                f"{len(stuck)} of the functions run in {self.place} did not return within "
                f"{PATIENCE:g} s of its closing, so a thread is left behind; "
                "give blocking calls a time-out"
            )


def _serve(jobs: SimpleQueue[Job[Any] | None]) -> None:
    while (job := jobs.get()) is not None:
        job.do()
        del job  # while waiting for the next one, nothing of this one is kept alive

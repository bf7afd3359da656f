"""Threads that begin at the same moment, each on its CPU."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from pytest_bpf.errors import StimulusError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def run_together(
    work: Callable[[int], T], threads: int, cpus: Sequence[int] = ()
) -> tuple[list[T], float]:
    """Call ``work(number)`` in so many threads; return the results, and how long it took.

    The seconds are those from the moment that every thread is ready to the end of the last one.
    ``cpus`` are taken one after another. Raises what a thread raises, and `StimulusError` for a
    CPU on which one may not run; no work is done then.
    """
    ready = threading.Barrier(threads + 1)

    def run(number: int) -> T:
        if cpus:
            try:
                _pin(cpus[number % len(cpus)])
            except StimulusError:
                ready.abort()  # the others would wait for this one
                raise
        ready.wait()
        return work(number)

    with ThreadPoolExecutor(threads, "bpf-together") as pool:
        try:
            running = [pool.submit(run, number) for number in range(threads)]
            with suppress(threading.BrokenBarrierError):  # the thread that broke it says why
                ready.wait()
            start = time.perf_counter()
            wait(running)
            seconds = time.perf_counter() - start
        except BaseException:
            ready.abort()
            raise
    errors = [error for future in running if (error := future.exception())]
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if errors:
        raise errors[0]
    return [future.result() for future in running], seconds


def _pin(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})  # 0: the calling thread
    except OSError as error:
        raise StimulusError(f"no thread can run on CPU {cpu}: {error.strerror}") from None

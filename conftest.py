"""The project's own tests: with pytest's `pytester`, a shared cache, and waits that end."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

pytest_plugins = ["pytester"]

LONGEST = 480
"""Seconds after which a test fails, and what it started is killed; making machines is slow."""


@pytest.hookimpl(trylast=True)  # after the settings were read, for which it is no choice
def pytest_configure(config: pytest.Config) -> None:
    """Name the cache: `pytester` gives every inner run a home of its own, and so an empty cache."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # workers would inherit it
    from pytest_bpf.cache import open_cache  # noqa: PLC0415 (the plugin is loaded before)

    os.environ.setdefault("PYTEST_BPF_CACHE", str(open_cache().folder))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Hand out the files with machines first, then those with many tests (-n with loadfile).

    A file is one worker's: whoever began with the slow ones last would be waited for.
    """
    if not hasattr(config, "workerinput"):
        return
    counts = Counter(item.path for item in items)
    first = {item.path: number for number, item in reversed(list(enumerate(items)))}
    machines = {item.path for item in items if item.get_closest_marker("xdist_group")}

    def order(item: pytest.Item) -> tuple[bool, int, int]:
        return item.path not in machines, -counts[item.path], first[item.path]

    items.sort(key=order)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End every wait, of fixtures too: a run that hangs tells nobody which test it is in."""

    def end(_number: int, _frame: object) -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        raise TimeoutError(f"{item.nodeid} took more than {LONGEST} s; what it started was killed")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

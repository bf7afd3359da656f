"""What is watched while tests run: this module is all that a passing test pays for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import BpfError
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import LOADER, PLACES, TRACED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.kernel.programs.run_time_stats import BackgroundStatistics
    from pytest_bpf.kernel.sys.printk import PrintkTrace
    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Namespace
    from pytest_bpf.objects import Object

LOADERS = {"bpf", "bpf_module", "_bpf_c_object"}
"""Fixtures that load objects."""

MEASURING = {"bpf_measure", "bpf_costs", "bpf_overhead", "bpf_budget", "bpf_agent"}
"""Fixtures that measure: the kernel's statistics would be part of what they see."""

WATCH = pytest.StashKey["Watch"]()
"""In the configuration: what is watched while tests run."""


class Watch:
    """The kernel's statistics and what programs print, followed while tests want it.

    Switching statistics on takes a third of a millisecond, so they stay on from test to test.
    """

    def __init__(self) -> None:
        self._statistics: BackgroundStatistics | None = None
        self._refused = False
        self.trace: PrintkTrace | None = None
        self.why_no_trace = ""
        self.since = 0.0

    def begin(self, *, counting: bool) -> None:
        """Begin a test, whose runs are counted or not."""
        self.since = time.monotonic()
        if counting and self._statistics is None and not self._refused:
            from pytest_bpf.kernel.programs.run_time_stats import BackgroundStatistics

            background = BackgroundStatistics()
            try:
                background.start()
            except BpfError:
                self._refused = True  # without privilege; what is missing is said by what needs it
            else:
                self._statistics = background
        elif not counting:
            self._stop_counting()

    def load(self, obj: Object) -> None:
        """Follow what an object prints, if it does."""
        from pytest_bpf.kernel.sys.printk import PrintkTrace, prints

        if self.trace is None and not self.why_no_trace and prints(obj.content):
            try:
                self.trace = PrintkTrace()
            except BpfError as error:
                self.why_no_trace = str(error)

    def close(self) -> None:
        """End all of it."""
        self._stop_counting()
        if self.trace is not None:
            self.trace.close()
            self.trace = None

    def _stop_counting(self) -> None:
        if self._statistics is not None:
            self._statistics.stop()
            self._statistics = None


def watch(item: pytest.Item) -> None:
    """Begin to watch a test that loads objects; statistics are off for those that measure."""
    config = item.config
    names = set(getattr(item, "fixturenames", ()))
    if not names & LOADERS and WATCH not in config.stash:
        return
    if WATCH not in config.stash:
        config.stash[WATCH] = Watch()
        config.add_cleanup(config.stash[WATCH].close)
    measures = names & MEASURING or item.get_closest_marker("bpf_budget") is not None
    config.stash[WATCH].begin(counting=bool(names & LOADERS) and not measures)
    if settings(config).trace or TRACED in item.stash:
        from pytest_bpf.plugin.artifacts import tracing

        tracing.begin(item, lambda: loaders(item), lambda: _namespaces(item))


def loaders(item: pytest.Item) -> list[Loader]:
    """Return the loaders of a test, its own last."""
    return [node.stash[LOADER] for node in item.listchain() if LOADER in node.stash]


def _namespaces(item: pytest.Item) -> Sequence[Namespace]:
    places = item.stash.get(PLACES, None)
    return tuple(places.namespaces) if places is not None else ()


def follow(config: pytest.Config, obj: Object) -> None:
    """Follow what an object that was loaded prints."""
    if WATCH in config.stash:
        config.stash[WATCH].load(obj)

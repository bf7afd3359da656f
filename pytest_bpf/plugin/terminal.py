"""The terminal that pytest was started at, from under what captures the standard streams."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


@contextmanager
def uncaptured(config: pytest.Config) -> Iterator[None]:
    """Give the standard streams back to whoever started pytest, for a while.

    Between tests pytest has suspended its capture already: then it stays so, or what pytest itself
    says next would be taken for the output of a test.
    """
    capture = config.pluginmanager.getplugin("capturemanager")
    streams = capture and capture._global_capturing  # noqa: SLF001 (nothing public tells its state)
    if not streams:
        yield
        return
    was_started = streams.is_started()
    capture.suspend_global_capture(in_=True)
    try:
        yield
    finally:
        capture.resume_global_capture()  # the only way to give standard input back
        if not was_started:
            capture.suspend_global_capture()


def has_terminal(config: pytest.Config, *descriptors: int) -> bool:
    """Say whether standard input, or all of these standard streams, are a terminal."""
    with uncaptured(config):
        return all(map(os.isatty, descriptors or (0,)))

"""What plugins import when a session ends is imported while the workers are at it."""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

LATE = {"hypothesispytest": "hypothesis.internal.observability"}
"""What a plugin imports at the end, and takes half a second for."""


def import_ahead(config: pytest.Config) -> None:
    """Import it in a thread."""
    names = [module for plugin, module in LATE.items() if config.pluginmanager.hasplugin(plugin)]

    def load() -> None:
        for name in names:
            with suppress(ImportError):
                importlib.import_module(name)

    if names:
        threading.Thread(target=load, daemon=True).start()

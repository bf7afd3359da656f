"""The project's own tests need pytest's `pytester`, and share the user's cache of objects."""

from __future__ import annotations

import os

pytest_plugins = ["pytester"]


def pytest_configure() -> None:
    """Name the cache: `pytester` gives every inner run a home of its own, and so an empty cache."""
    from pytest_bpf.cache import open_cache  # noqa: PLC0415 (the plugin is loaded before)

    os.environ.setdefault("PYTEST_BPF_CACHE", str(open_cache().folder))

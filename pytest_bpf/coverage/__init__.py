"""Which lines of C ran, the path of one run, and what each line costs.

A build that counts is loaded in the place of the one that ships. Nothing here is imported until a
session asks for lines.
"""

from __future__ import annotations

from typing import Any


def coverage_init(registry: Any, options: Any) -> None:  # noqa: ARG001 - coverage.py's signature
    """Register with coverage.py, whose configuration names this module in ``plugins``."""
    from pytest_bpf.coverage.reporter import LinesPlugin  # noqa: PLC0415 - needs coverage.py

    plugin = LinesPlugin()
    registry.add_file_tracer(plugin)
    registry.add_configurer(plugin)

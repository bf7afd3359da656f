"""Which tests count lines: all that do not measure, when lines are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_bpf.plugin.stash import LINES, TRACED

if TYPE_CHECKING:
    from pytest_bpf.coverage.cost_recorder import CostRecorder
    from pytest_bpf.coverage.recorder import Recorder

MEASURING = frozenset(
    {
        *(
            "bpf_line_costs",
            "bpf_verifier_costs",
            "bpf_measure",
            "bpf_costs",
            "bpf_overhead",
            "bpf_statistics",
        ),
        *("bpf_budget", "bpf_claim", "bpf_equivalent", "bpf_lint"),
    }
)
"""The fixtures that measure or examine programs as they ship."""


def measures(item: pytest.Item) -> bool:
    """Say whether a test measures programs, or is held against a budget."""
    names = MEASURING.intersection(getattr(item, "fixturenames", ()))
    return bool(names) or item.get_closest_marker("bpf_budget") is not None


def recorder_for(request: pytest.FixtureRequest) -> Recorder | CostRecorder | None:
    """Return what counts the lines of the objects that a test or a module loads.

    Those of a second run, whose path is recorded, are in that alone, and not in the session's.
    """
    items = _items(request)
    lines = request.config.stash.get(LINES, None)
    recorder: Recorder | CostRecorder | None = lines.recorder_for(items) if lines else None
    again = recorder is not None and TRACED in request.node.stash
    asked = any("bpf_lines" in getattr(item, "fixturenames", ()) for item in items)
    if again or (recorder is None and asked):
        from pytest_bpf.coverage.recorder import Recorder

        return Recorder()
    return recorder


def _items(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """Return the tests that a loader is for."""
    node = request.node
    if isinstance(node, pytest.Item):
        return [node]
    return [item for item in request.session.items if node in item.listchain()]

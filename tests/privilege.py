"""What a test needs that not every user has, and the tests that need nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.features.privilege import privilege

if TYPE_CHECKING:
    from collections.abc import Iterable

UNIT = frozenset(
    {
        "test_btf",
        "test_budgets_change",
        "test_budgets_limits",
        "test_budgets_results",
        "test_cache",
        "test_compile_compilers",
        "test_costs_latency",
        "test_costs_reference",
        "test_coverage_mapping",
        "test_counts",
        "test_differences",
        "test_dwarf",
        "test_flow",
        "test_hints",
        "test_kinds",
        "test_layers",
        "test_places_messages",
        "test_quarantine",
        "test_requirements",
        "test_settings",
        "test_stimuli_packets",
        "test_vm_parts",
    }
)
"""Modules that an ordinary user can run, in seconds; what in them needs privilege is skipped."""


def mark_unit_tests(items: Iterable[pytest.Item]) -> None:
    """Give the tests of `UNIT` the marker ``unit``."""
    for item in items:
        if item.path.stem in UNIT:
            item.add_marker("unit")


def skip_without_privilege(item: pytest.Item) -> None:
    """Skip a test that is no unit test, saying what is missing to load programs."""
    if item.get_closest_marker("unit"):
        return
    try:
        missing = privilege()
    except UnavailableError as error:
        missing = str(error)
    if missing:
        pytest.skip(missing)

"""What a test asks for, and which of its reports count."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def uses_bpf(item: pytest.Item) -> bool:
    """Say whether a test asks for one of our fixtures."""
    names = getattr(item, "fixturenames", ())
    return any(name == "bpf" or name.startswith("bpf_") for name in names)


def counts(report: pytest.TestReport) -> bool:
    """Say whether a report is of a test's last try, and not of one that is repeated."""
    return report.outcome in {"passed", "failed", "skipped"}

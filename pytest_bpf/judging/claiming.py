"""Claims on pytest's side: the marker is read, and what its test made of it goes to the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_bpf.claims import Claim, ClaimError, where
from pytest_bpf.stash import FINDING


def claim_of(item: pytest.Item) -> Claim:
    """Return what a test claims, not measured yet; refuse a marker that cannot be understood."""
    mark = item.get_closest_marker("bpf_claim")
    assert mark
    if "bpf_claim" not in getattr(item, "fixturenames", ()):
        raise pytest.UsageError(f"{item.nodeid}: has the marker bpf_claim, and not the fixture")
    try:
        return Claim.parse(mark)
    except ClaimError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def found(item: pytest.Item, report: pytest.TestReport) -> Claim:
    """Return what a test made of its claim, or why it made nothing of it."""
    claim = item.stash[FINDING].claim if FINDING in item.stash else claim_of(item)
    if claim.verdict != "not measured":
        return claim
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "the test failed"
    return replace(claim, measured=reason.removeprefix("Skipped: "), where=where())

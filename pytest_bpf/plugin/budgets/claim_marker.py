"""Claims on pytest's side: the marker is read, and what its test made of it goes to the report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import pytest

from pytest_bpf.budgets.claims import Claim, ClaimError, ClaimVerdict, where
from pytest_bpf.plugin.stash import CLAIM_CHECK

if TYPE_CHECKING:
    from pytest_bpf.plugin.requirements import Mark


def claim_of(item: pytest.Item) -> Claim:
    """Return what a test claims, not measured yet; refuse a marker that cannot be understood."""
    mark = item.get_closest_marker("bpf_claim")
    assert mark
    if "bpf_claim" not in getattr(item, "fixturenames", ()):
        raise pytest.UsageError(f"{item.nodeid}: has the marker bpf_claim, and not the fixture")
    try:
        return parse_claim(mark)
    except ClaimError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def claim_result(item: pytest.Item, report: pytest.TestReport) -> Claim:
    """Return what a test made of its claim, or why it made nothing of it."""
    claim = item.stash[CLAIM_CHECK].claim if CLAIM_CHECK in item.stash else claim_of(item)
    if claim.verdict != "not measured":
        return claim
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "the test failed"
    return replace(claim, measured=reason.removeprefix("Skipped: "), where=where())


def parse_claim(mark: Mark) -> Claim:
    """Return the claim of a marker, not measured yet; raises `ClaimError`."""
    wrong = set(mark.kwargs) - {"row", "verdict"}
    if wrong or len(mark.args) != 1 or not isinstance(mark.args[0], str) or not mark.args[0]:
        raise ClaimError(
            "bpf_claim takes what is claimed, and row= and verdict=: "
            "bpf_claim('an array is the fastest map', row=6, verdict='holds')"
        )
    row, expected = mark.kwargs.get("row"), mark.kwargs.get("verdict", "holds")
    if row is not None and (not isinstance(row, int) or isinstance(row, bool)):
        raise ClaimError(f"bpf_claim({row=}): must be a number, the claim's place in the table")
    if expected is not None and expected not in get_args(ClaimVerdict)[:3]:
        raise ClaimError(
            f"bpf_claim(verdict={expected!r}): must be 'holds', 'holds in part' or 'refuted', "
            "or None where it depends on the machine"
        )
    return Claim(mark.args[0], row, expected)

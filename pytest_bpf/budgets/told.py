"""What a report tells of limits and of claims, as plain values: checked when a file is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pytest_bpf.budgets import shape
from pytest_bpf.budgets.findings import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FINDING = ("test", "kernel", "metric", "subject", "verdict", "kind", "headline", "summary")
FINDING_NUMBERS = ("value", "target", "limit", "before")

CLAIM = ("test", "says", "verdict", "measured", "unit", "where")
CLAIM_NUMBERS = ("row", "before", "after", "ratio")


def findings_of(content: object) -> tuple[Mapping[str, Any], ...]:
    """Return the findings of a report; raises `shape.ShapeError`."""
    each = tuple(_members(content, "findings", FINDING, FINDING_NUMBERS))
    for number, finding in enumerate(each):
        if finding["verdict"] not in get_args(Verdict):
            raise shape.ShapeError(f"findings[{number}].verdict is {finding['verdict']!r}")
    return each


def claims_of(content: object) -> tuple[Mapping[str, Any], ...]:
    """Return the claims of a report; raises `shape.ShapeError`."""
    each = tuple(_members(content, "claims", CLAIM, CLAIM_NUMBERS))
    for number, claim in enumerate(each):
        for name in CLAIM_NUMBERS:
            shape.member(claim, name, f"claims[{number}]")
        if shape.member(claim, "expected", f"claims[{number}]") is not None:
            shape.string(claim["expected"], f"claims[{number}].expected")
    return each


def _members(
    content: object, name: str, texts: Sequence[str], numbers: Sequence[str]
) -> list[Mapping[str, Any]]:
    checked = []
    for number, each in enumerate(shape.array(content, name)):
        place = f"{name}[{number}]"
        values = shape.mapping(each, place)
        for text in texts:
            shape.string(shape.member(values, text, place), f"{place}.{text}")
        for figure in numbers:
            if values.get(figure) is not None:
                shape.number(values[figure], f"{place}.{figure}")
        checked.append(values)
    return checked

"""Checks of JSON values: each returns the value, or raises `ShapeError` with its place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST = 1e300
"""Numbers beyond it overflow when they are compared."""


class ShapeError(ValueError):
    """A value of the wrong type, or out of its range; the message says where."""


def mapping(value: object, place: str) -> Mapping[str, Any]:
    """Return an object of JSON."""
    if not isinstance(value, dict):
        raise ShapeError(f"{place} is {_brief(value)}, not an object")
    return value


def array(value: object, place: str) -> list[Any]:
    """Return an array of JSON."""
    if not isinstance(value, list):
        raise ShapeError(f"{place} is {_brief(value)}, not an array")
    return value


def string(value: object, place: str) -> str:
    """Return a string that can be written as UTF-8."""
    if not isinstance(value, str):
        raise ShapeError(f"{place} is {_brief(value)}, not a string")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ShapeError(f"{place} is {_brief(value)}, which is no valid Unicode")
    return value


def number(value: object, place: str) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ShapeError(f"{place} is {_brief(value)}, not a number")
    if not (isinstance(value, int) or math.isfinite(value)) or abs(value) > LARGEST:
        raise ShapeError(f"{place} is {_brief(value)}: a figure is finite, and at most 1e300")
    return value


def member(parent: Mapping[str, Any], name: str, place: str) -> Any:
    """Return a member that must be there."""
    if name not in parent:
        raise ShapeError(f"{place} has no {name!r}")
    return parent[name]


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

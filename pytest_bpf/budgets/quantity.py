"""Figures as people write them, ``"150ns"``, ``"2%"``, ``"200MB"``, and as they read them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.costs.figures.figure import Unit

_TIMES = {"ns": 1.0, "us": 1e3, "µs": 1e3, "μs": 1e3, "ms": 1e6, "s": 1e9}
_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9} | {
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
_THOUSANDS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_RATES = _THOUSANDS | {f"{prefix}/s": factor for prefix, factor in _THOUSANDS.items()}

_FACTORS: Final[Mapping[Unit, Mapping[str, float]]] = {
    "ns": _TIMES,
    "B": _BYTES,
    "share": {"%": 0.01},
    "count": _THOUSANDS,
    "instructions": _THOUSANDS,
    "1/s": _RATES,
}

_EXAMPLES: Final[Mapping[Unit, tuple[str, str]]] = {
    "ns": ("a time", "'150ns', '100us', '2ms'"),
    "B": ("a size", "'512B', '64KiB', '200MB'"),
    "share": ("a share", "'2%', '0.1%'"),
    "count": ("a count", "4000, '4k'"),
    "instructions": ("a count of instructions", "230, '2k'"),
    "1/s": ("a rate", "50000, '50k/s'"),
}

_PATTERN = re.compile(r"(?P<number>[+-]?[\d_,]*\.?\d+(?:[eE][+-]?\d+)?)\s*(?P<unit>[^\d\s]*)")


class QuantityError(BpfError, ValueError):
    """A figure that cannot be understood: not a number, or in a unit of something else."""


def parse_quantity(text: object, unit: Unit) -> float:
    """Return what was written, in ``unit``; times and sizes and shares need theirs.

    >>> parse_quantity("100us", "ns"), parse_quantity("2 %", "share"), parse_quantity(4000, "count")
    (100000.0, 0.02, 4000.0)

    Raises `QuantityError` for what is no number, in the wrong unit, infinite or negative.
    """
    kind, examples = _EXAMPLES[unit]
    if isinstance(text, bool) or not isinstance(text, (int, float, str)):
        raise QuantityError(f"{text!r} is not {kind}; write {examples}")
    match = _PATTERN.fullmatch(str(text).strip())
    if not match:
        raise QuantityError(f"{text!r} is not {kind}; write {examples}")
    number = float(re.sub("[_,]", "", match["number"]))
    factors = _FACTORS[unit]
    if match["unit"] not in factors:
        lacking = "has no unit" if not match["unit"] else f"is in {match['unit']!r}"
        raise QuantityError(f"{text!r} {lacking}, which is not that of {kind}; write {examples}")
    if number < 0 or not math.isfinite(number):
        raise QuantityError(f"{text!r} is negative or without end: no {kind[2:]} is")
    return number * factors[match["unit"]]


def format_value(value: float, unit: Unit) -> str:
    """Return a value as it is read best: four digits, and the unit of its size.

    >>> format_value(84.2, "ns"), format_value(0.021, "share"), format_value(80_800_000, "B")
    ('84.2 ns', '2.1 %', '80.8 MB')
    """
    if unit == "share":
        return f"{_short(100 * value)} %"
    if unit == "ns":
        return _scaled(value, ("ns", "us", "ms", "s"))
    if unit == "B":
        return _scaled(value, ("B", "kB", "MB", "GB"))
    return _short(value) + ("/s" if unit == "1/s" else "")


def format_change(before: float, after: float, unit: Unit) -> str:
    """Return by how much: ``"+15 (+6.5 %)"``; shares in percentage points.

    There are no per cents of nothing, nor of a time that an empty program takes as well.
    """
    by = after - before
    sign = "+" if by >= 0 else "-"
    much = f"{_short(100 * abs(by))} points" if unit == "share" else format_value(abs(by), unit)
    if before <= 0:
        return f"{sign}{much}"
    share = 100 * by / before
    return (
        f"{sign}{much} ({share:+,.0f} %)" if abs(share) >= 100 else f"{sign}{much} ({share:+.3g} %)"
    )


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= 1000 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{_short(value)} {units[power]}"


def _short(value: float) -> str:
    """Return a number with four digits, or all of them when it is a whole one.

    >>> _short(84.25), _short(4000.0), _short(1234.56), _short(0.000123)
    ('84.25', '4,000', '1,235', '0.000123')
    """
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"

"""How much a figure may change from a baseline to now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.budgets.quantity import QuantityError, format_value, parse_quantity
from pytest_bpf.costs.figures.figure import METRICS, Unit
from pytest_bpf.errors import BpfError, near_matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_bpf.costs.figures.figure import Instrument


class ToleranceError(BpfError, ValueError):
    """An allowed change that cannot be understood."""


@dataclass(frozen=True)
class Tolerance:
    """A change for the worse that is let pass: a share of the old figure, or so much."""

    relative: float = 0.0
    absolute: float = 0.0

    def room(self, before: float) -> float:
        """Return how much that is, in the unit of ``before``."""
        return max(abs(before) * self.relative, self.absolute)

    def describe(self, unit: Unit) -> str:
        """Return it as in "where 10 % is allowed"."""
        if self.relative:
            return format_value(self.relative, "share")
        return format_value(self.absolute, unit) if self.absolute else "no change"


DEFAULTS: Mapping[Instrument, Tolerance] = {
    "verifier": Tolerance(),
    "kernel": Tolerance(),
    "exact": Tolerance(),
    "clock": Tolerance(relative=0.05),
}
"""By instrument: what is the same each time may not change at all.

For times it is as little as lets a tenth more be found nearly always (``benchmarks rates``).
"""


def parse(changes: Mapping[str, str]) -> dict[str, Tolerance]:
    """Return the allowed changes by metric: ``{"run_time": "10%", "verified_insns": "20"}``.

    Raises `ToleranceError` for unknown metrics and for what is no change.
    """
    return {name: _parse(name, text) for name, text in changes.items()}


def parse_lines(lines: Iterable[str]) -> dict[str, Tolerance]:
    """Return the same from lines: ``"run_time: 10%"``."""
    pairs = (line.partition(":") for line in lines if line.strip())
    return parse({name.strip(): text.strip() for name, _, text in pairs})


def tolerance_for(
    metric: str, instrument: Instrument, changes: Mapping[str, Tolerance]
) -> Tolerance:
    """Return what holds for a metric: its own, or the default of its instrument."""
    return changes.get(metric, DEFAULTS[instrument])


def _parse(name: str, text: str) -> Tolerance:
    if name not in METRICS:
        raise ToleranceError(f"there is no metric {name!r} to change{near_matches(name, METRICS)}")
    text = text.strip()
    try:
        if text.endswith("%"):
            return Tolerance(relative=parse_quantity(text, "share"))
        if text == "0":
            return Tolerance()
        return Tolerance(absolute=parse_quantity(text, METRICS[name].unit))
    except QuantityError as error:
        raise ToleranceError(
            f"allowed change of {name}: {error}; or '10%' of the old one"
        ) from None

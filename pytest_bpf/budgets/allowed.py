"""How much a figure may change from a baseline to now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.budgets.quantity import QuantityError, quantity, shown
from pytest_bpf.costs.figure import METRICS, Unit
from pytest_bpf.errors import BpfError, near_matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.costs.figure import Instrument


class AllowedError(BpfError, ValueError):
    """An allowed change that cannot be understood."""


@dataclass(frozen=True)
class Allowed:
    """A change for the worse that is let pass: a share of the old figure, or so much."""

    relative: float = 0.0
    absolute: float = 0.0

    def room(self, before: float) -> float:
        """Return how much that is, in the unit of ``before``."""
        return max(abs(before) * self.relative, self.absolute)

    def told(self, unit: Unit) -> str:
        """Return it as in "where 10 % is allowed"."""
        if self.relative:
            return shown(self.relative, "share")
        return shown(self.absolute, unit) if self.absolute else "no change"


DEFAULTS: Mapping[Instrument, Allowed] = {
    "verifier": Allowed(),
    "kernel": Allowed(),
    "exact": Allowed(),
    "clock": Allowed(relative=0.05),
}
"""By instrument: what is the same each time may not change at all.

For times it is as little as lets a tenth more be found nearly always (``benchmarks rates``).
"""


def parse(changes: Mapping[str, str]) -> dict[str, Allowed]:
    """Return the allowed changes by metric: ``{"run_time": "10%", "verified_insns": "20"}``.

    Raises `AllowedError` for unknown metrics and for what is no change.
    """
    return {name: _parse(name, written) for name, written in changes.items()}


def parse_lines(lines: list[str]) -> dict[str, Allowed]:
    """Return the same from lines: ``"run_time: 10%"``."""
    pairs = (line.partition(":") for line in lines if line.strip())
    return parse({name.strip(): written.strip() for name, _, written in pairs})


def allowed_for(metric: str, instrument: Instrument, changes: Mapping[str, Allowed]) -> Allowed:
    """Return what holds for a metric: its own, or the default of its instrument."""
    return changes.get(metric, DEFAULTS[instrument])


def _parse(name: str, written: str) -> Allowed:
    if name not in METRICS:
        raise AllowedError(f"there is no metric {name!r} to change{near_matches(name, METRICS)}")
    written = written.strip()
    try:
        if written.endswith("%"):
            return Allowed(relative=quantity(written, "share"))
        if written == "0":
            return Allowed()
        return Allowed(absolute=quantity(written, METRICS[name].unit))
    except QuantityError as error:
        raise AllowedError(f"allowed change of {name}: {error}; or '10%' of the old one") from None

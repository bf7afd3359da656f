"""What was measured, on what, as Markdown."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.pairs import Estimate, Spread


@dataclass
class Report:
    """One benchmark: a table, a sentence on each goal, and what could not be measured."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the title, the remarks and the table."""
        lines = [f"## {self.title}", "", *(f"* {remark}" for remark in self.remarks)]
        if self.rows:
            rule = ("---", *("---:" for _ in self.columns[1:]))
            table = (self.columns, rule, *self.rows)
            lines += ["", *(f"| {' | '.join(cells)} |" for cells in table)]
        return "\n".join(lines) + "\n"


def goal(
    what: str, found: Estimate, *, least: float = float("-inf"), most: float = float("inf")
) -> str:
    """Say in a remark whether a goal was reached; a figure on the border decides nothing."""
    inside = [least <= value <= most for value in (found.low, found.high)]
    verdict = "reached" if all(inside) else "inconclusive" if any(inside) else "not reached"
    return f"Goal: {what}: **{verdict}**."


def number(value: float) -> str:
    """Write a number with as many digits as mean something."""
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
    )


def spread(of: Spread) -> str:
    """Write a median with the quartiles and the least: ``3.70 (3.39-4.28, least 2.85)``."""
    low, median, high, least = map(number, (of.low, of.median, of.high, of.least))
    return f"{median} ({low}-{high}, least {least})"


def estimate(of: Estimate) -> str:
    """Write a figure with its interval: ``0.31 (0.29-0.33)``."""
    return f"{number(of.value)} ({number(of.low)} to {number(of.high)})"


def machine() -> str:
    """Say in one line what it was measured on."""
    return (
        f"Linux {os.uname().release}, {os.cpu_count()} CPUs ({_cpu()}), "
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "cpu model", "Processor"}:
            return value.strip()
    return platform.machine()

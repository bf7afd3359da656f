"""The terminal's sections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.costs.figures.program import ProgramCost

HEADINGS = ("program", "section", "verified insns", "stack B", "jited B", "runs", "ns/run")


def costs_table(costs: Iterable[ProgramCost]) -> list[str]:
    """Return the table of costs, one line a program, runs of all tests together.

    ``ns/run`` is the mean of all runs that were seen, with the time that the kernel's own
    statistics take; it is "-" for a program that never ran.
    """
    grouped: dict[tuple[str, str], list[ProgramCost]] = {}
    for cost in costs:
        grouped.setdefault((cost.object, cost.program), []).append(cost)
    names = _shortened({obj for obj, _ in grouped})
    rows: list[tuple[str, ...]] = [HEADINGS]
    rows += [_row(names[obj], name, costs) for (obj, name), costs in sorted(grouped.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    return [_line(row, widths) for row in rows]


def _shortened(paths: Iterable[str]) -> dict[str, str]:
    """Return, for each path, its name, with as many of its folders as tell it from the others."""
    names = {}
    listed = [Path(path) for path in paths]
    for path in listed:
        for parts in range(1, len(path.parts) + 1):
            end = path.parts[-parts:]
            if sum(other.parts[-parts:] == end for other in listed) == 1:
                break
        names[str(path)] = str(Path(*end))
    return names


def _row(obj: str, program: str, costs: list[ProgramCost]) -> tuple[str, ...]:
    runs = sum(cost.run_cnt for cost in costs)
    time = sum(cost.run_time_ns for cost in costs)
    return (
        f"{obj}:{program}",
        costs[0].section,
        _range(cost.verified_insns for cost in costs),
        _range(cost.stack_depth for cost in costs),
        _range(cost.prog_size_jited for cost in costs),
        f"{runs:,}",
        f"{time / runs:,.0f}" if runs else "-",
    )


def _range(figures: Iterable[int]) -> str:
    low, *rest = sorted(set(figures))
    return f"{low:,}" if not rest else f"{low:,}-{rest[-1]:,}"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    names = (cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
    figures = (cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
    return "  ".join((*names, *figures)).rstrip()

"""The table of claims: what was claimed, what was measured, what became of it, and where."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_bpf.budgets.claims import Claim

HEADINGS = ("row", "claim", "measured", "verdict", "where")

TITLE = "What became of the claims"

NARROWEST = 100
"""Columns of text that a table takes at least: below, it would be all height."""


@dataclass(frozen=True)
class Line:
    """A line of the table: a claim, and what all tests on all kernels made of it."""

    row: str
    says: str
    measured: str
    verdict: str
    where: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The line's text by column."""
        return self.row, self.says, self.measured, self.verdict, self.where


def claim_lines(claims: Iterable[Claim]) -> list[Line]:
    """Return the lines by row; what several tests and kernels measured of one claim is one line.

    Where nothing was measured the line says why not. A verdict that is not the expected one stands
    on a line of its own.
    """
    grouped: dict[tuple[int | None, str], list[Claim]] = {}
    for claim in claims:
        grouped.setdefault((claim.row, claim.says), []).append(claim)
    last = 1 + max((row for row, _ in grouped if row is not None), default=0)
    order = sorted(grouped, key=lambda key: (last if key[0] is None else key[0], key[1]))
    return [line for key in order for line in _lines(grouped[key])]


def claims_table(lines: Sequence[Line], width: int) -> list[str]:
    """Return the table for a terminal of ``width`` columns; cells go on below where they must."""
    rows = [HEADINGS, *(line.cells for line in lines)]
    narrow = {i: max(len(row[i]) for row in rows) for i in (0, 3)}
    room = max(width, NARROWEST) - sum(narrow.values()) - 2 * (len(HEADINGS) - 1)
    where = min(max(len(row[4]) for row in rows), room // 4)
    says = (room - where) * 2 // 5
    widths = (narrow[0], says, room - where - says, narrow[3], where)
    return [text for row in rows for text in _wrapped(row, widths)]


def claims_markdown(lines: Sequence[Line], heading: str = f"# {TITLE}") -> list[str]:
    """Return the same table in Markdown, below a heading."""
    rows = [HEADINGS, ["---"] * len(HEADINGS), *(line.cells for line in lines)]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [heading, "", *table]


def _lines(claims: Sequence[Claim]) -> list[Line]:
    measured_claims = [claim for claim in claims if claim.verdict != "not measured"]
    by_verdict: dict[str, list[Claim]] = {}
    for claim in measured_claims or claims:
        as_expected = claim.verdict == "not measured" or claim.expected in (None, claim.verdict)
        verdict = claim.verdict if as_expected else f"{claim.verdict}, not {claim.expected!r}"
        by_verdict.setdefault(verdict, []).append(claim)
    return [_line(verdict, group) for verdict, group in by_verdict.items()]


def _line(verdict: str, claims: Sequence[Claim]) -> Line:
    first = claims[0]
    row = "" if first.row is None else str(first.row)
    return Line(
        row,
        first.says,
        "; ".join(dict.fromkeys(claim.measured for claim in claims)),
        verdict,
        ", ".join(dict.fromkeys(claim.where for claim in claims)),
    )


def _wrapped(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    columns = [textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, columns))
    padded = [[*column, *[""] * (height - len(column))] for column in columns]
    return [
        "  ".join(c.ljust(width) for c, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*padded, strict=True)
    ]

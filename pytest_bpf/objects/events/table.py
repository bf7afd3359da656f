"""Events as a table: a column for each member, a row for each event."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

MANY, WIDEST = 40, 40
"""Rows of a table, and characters of a cell."""


def table(events: Sequence[Any]) -> str:
    """Return the first events as a table; those of another type than the first stand as they are.

    >>> print(table([]))
    no events
    """
    if not events:
        return "no events"
    names: tuple[str, ...] = tuple(getattr(events[0], "_fields", ()))
    rows = [names] if names else []
    for event in islice(events, MANY):
        alike = names and tuple(getattr(event, "_fields", ())) == names
        rows.append(tuple(map(_cell, event)) if alike else (_cell(event),))
    whole = [row for row in rows if len(row) == len(names)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() if len(row) == len(names) else row[0]
             for row in rows]  # fmt: skip
    if len(events) > MANY:
        lines.append(f"... and {len(events) - MANY} more")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    name = getattr(value, "name", None)
    text = name if isinstance(name, str) else str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."

"""Source lines with what they cost in front, to read in a terminal: one row for each line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AROUND = 1
"""Lines around those that cost something that are shown too."""


@dataclass(frozen=True)
class CostRow:
    """A line of C and what it cost: ``amount`` in some unit, and a ``remark`` to show behind it."""

    file: str
    line: int
    amount: int
    remark: str = ""


@dataclass(frozen=True)
class CostLine:
    """A line as it is shown; ``row`` is None where it cost nothing, ``share`` is per cent."""

    line: int
    text: str
    row: CostRow | None = None
    share: float = 0.0


@dataclass(frozen=True)
class CostFile:
    """A source, and the parts of it that cost something: neighbouring lines are one part.

    Of one that ``is_gone`` only the numbers of lines are known.
    """

    path: str
    parts: tuple[tuple[CostLine, ...], ...]
    is_gone: bool = False


def cost_files(rows: Sequence[CostRow]) -> list[CostFile]:
    """Return the sources of some rows, each with the lines around those that cost something."""
    total = sum(row.amount for row in rows) or 1
    files = []
    for path in dict.fromkeys(row.file for row in rows):
        text = _lines(path)
        own = {row.line: row for row in rows if row.file == path}
        files.append(CostFile(path, tuple(_parts(own, text, total)), is_gone=not text))
    return files


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


def _parts(
    own: Mapping[int, CostRow], text: Sequence[str], total: int
) -> Iterator[tuple[CostLine, ...]]:
    around = {n for at in own for n in range(at - AROUND, at + AROUND + 1)}
    shown = own.keys() | {n for n in around if min(own) < n < max(own) and n <= len(text)}
    part: list[CostLine] = []
    for line in sorted(shown):
        if part and line > part[-1].line + 1:
            yield tuple(part)
            part = []
        row = own.get(line)
        share = 100 * row.amount / total if row else 0.0
        words = text[line - 1] if 0 < line <= len(text) else ""
        part.append(CostLine(line, words, row, share))
    yield tuple(part)


def annotated_text(rows: Sequence[CostRow], unit: str) -> str:
    """Return the lines of C with what they cost, its share and their number in front."""
    return "\n".join(line for file in cost_files(rows) for line in _text(file, unit))


def _text(file: CostFile, unit: str) -> Iterator[str]:
    gone = ", which cannot be read" * file.is_gone
    yield f"{os.path.relpath(file.path)}{gone}:   ({unit}, share, line)"
    for number, part in enumerate(file.parts):
        if number:
            yield f"{'':18} |  ..."
        for line in part:
            front = f"{line.row.amount:10} {line.share:5.1f} %" if line.row else f"{'':18}"
            remark = line.row.remark if line.row else ""
            yield f"{front} | {line.line:4} {line.text}{remark}".rstrip()

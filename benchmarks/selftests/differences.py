"""Programs that a kernel answers otherwise than annotated: by name, with the reason.

A file ``differences/VERSION.txt`` is for kernels of that version. A line that starts with ``#`` is
the reason for the names below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FOLDER = Path(__file__).with_name("differences")


@dataclass(frozen=True)
class Comparison:
    """Differences that are in no list, and listed ones that this run answered as annotated."""

    new: tuple[str, ...]
    stale: tuple[str, ...]


def file_for(release: str) -> Path:
    """Return the list for a kernel; it need not exist."""
    return FOLDER / f"{'.'.join(release.split('.')[:2])}.txt"


def read(path: Path) -> dict[str, str]:
    """Return the reason of each name; raises `ValueError` for a list that says none or repeats."""
    reasons: dict[str, str] = {}
    reason = ""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(map(str.strip, lines), 1):
        if line.startswith("#"):
            follows = number > 1 and lines[number - 2].startswith("#")
            reason = f"{reason} {line[1:].strip()}" if follows else line[1:].strip()
        elif line:
            if not reason or line in reasons:
                raise ValueError(f"{path}:{number}: {line} stands twice or without a reason")
            reasons[line] = reason
    return reasons


def compare(
    listed: Mapping[str, str], different: Collection[str], as_annotated: Collection[str]
) -> Comparison:
    """Hold a run against a list; a listed name that was not run is neither new nor stale."""
    return Comparison(
        tuple(name for name in different if name not in listed),
        tuple(name for name in listed if name in as_annotated),
    )

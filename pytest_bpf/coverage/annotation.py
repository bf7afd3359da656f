"""C with the counts of its lines in front, to read in a terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_bpf.coverage.values import FileLines

CONTEXT = 2
"""Lines around those that ran that are shown too."""


def annotate(files: Iterable[FileLines]) -> str:
    """Return the functions that ran, each line with its count; ``-`` is a line that did not run.

    >>> print(annotate([]))
    no line ran
    """
    return "\n".join(line for file in files for line in _file(file)) or "no line ran"


def _file(file: FileLines) -> Iterator[str]:
    spans = sorted({(f.line, f.end_line) for f in file.functions if f.count})
    if not spans:
        return
    try:
        text = Path(file.path).read_text(errors="replace").splitlines()
    except OSError:
        text = []
    yield f"{os.path.relpath(file.path)}:"
    if not text:
        yield "    (the source cannot be read: these lines ran) " + ", ".join(
            str(line) for line, count in file.lines.items() if count
        )
        return
    width = len(str(max(file.lines.values())))
    for first, last in spans:
        start = _signature(text, first)
        for line in range(start, min(last, len(text)) + 1):
            count = file.lines.get(line)
            shown = "" if count is None else str(count or "-")
            yield f"{shown:>{width + 2}} | {line:4} {text[line - 1]}".rstrip()


def _signature(text: list[str], first: int) -> int:
    """Return where a function's declaration starts: its counted part starts at the brace."""
    start = first
    while start > 1 and first - start < CONTEXT and text[start - 2].strip():
        if text[start - 2].rstrip().endswith((";", "}", "*/")):
            break
        start -= 1
    return start

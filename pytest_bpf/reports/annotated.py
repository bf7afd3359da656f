"""C with the counts and the costs of its lines, from what was counted in a session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.budgets.annotated import AnnotatedFile, AnnotatedLine, helper_calls
from pytest_bpf.coverage.values import merge_builds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_bpf.coverage.line_costs import LineCost
    from pytest_bpf.coverage.values import FileLines

AROUND = 2
"""Lines before and after those that count that are shown too."""

MOST_LINES = 2000
"""Lines of one source that a report keeps."""


def annotate(files: Sequence[FileLines], costs: Iterable[LineCost]) -> tuple[AnnotatedFile, ...]:
    """Return the sources of which lines were counted, or cost something, each once.

    Counts are those of all builds of a source. Of one that cannot be read any more there are the
    figures alone.
    """
    files = merge_builds(files)
    counts = {file.path: file.lines for file in files}
    spans = {file.path: [(f.line, f.end_line) for f in file.functions] for file in files}
    by_path: dict[str, dict[int, LineCost]] = {}
    for cost in costs:
        by_path.setdefault(cost.file, {})[cost.line] = cost
    made = []
    for path in sorted({*counts, *by_path}):
        ran, own = counts.get(path, {}), by_path.get(path, {})
        try:
            text = Path(path).read_text(errors="replace").splitlines()
        except OSError:
            text = []
        wanted = {*ran, *own}
        wanted |= {n for first, last in spans.get(path, []) for n in range(first, last + 1)}
        around = {n + step for n in wanted for step in range(-AROUND, AROUND + 1)}
        numbers = [n for n in sorted(around) if n in wanted or 0 < n <= len(text)]
        lines = [
            AnnotatedLine(
                number,
                text[number - 1] if number <= len(text) else "",
                ran.get(number),
                own[number].instructions if number in own else None,
                helper_calls(own[number].helpers) if number in own else "",
            )
            for number in numbers[:MOST_LINES]
        ]
        if lines:
            made.append(AnnotatedFile(_from_here(path), tuple(lines)))
    return tuple(made)


def _from_here(path: str) -> str:
    here = os.path.relpath(path)
    return path if here.startswith("..") else here

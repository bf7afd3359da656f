"""Which lines count as statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_bpf.coverage.c_source import CSource
    from pytest_bpf.coverage.values import FileLines


def statement_lines(source: CSource, file: FileLines) -> set[int]:
    """Return the lines with code where statements start.

    Outside of what was understood as functions every line with code counts.
    """
    starts = {statement.line for statement in source.statements()}
    inside = {n for f in source.functions for n in range(f.line, f.last + 1)}
    return {line for line in file.lines if line in starts or line not in inside}

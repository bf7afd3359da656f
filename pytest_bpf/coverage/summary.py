"""What a report says of a source: which statements and branches it has, and which were missed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.coverage.c_source import NO_COVER, CSource, parse
from pytest_bpf.coverage.statements import statement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.coverage.values import Branch, FileLines, FunctionLines


@dataclass(frozen=True)
class FileSummary:
    """One source: its counts, without what ``/* no cover */`` takes out, and its text."""

    file: FileLines
    text: str

    @cached_property
    def _c(self) -> CSource:
        return parse(self.text)

    @cached_property
    def excluded(self) -> set[int]:
        """The lines that are not to count."""
        return self._c.excluded([NO_COVER])

    @cached_property
    def lines(self) -> dict[int, int]:
        """The counts of the lines that count."""
        return {n: count for n, count in self.file.lines.items() if n not in self.excluded}

    @cached_property
    def statements(self) -> list[int]:
        """The lines where statements start."""
        return sorted(statement_lines(self._c, self.file) - self.excluded)

    @property
    def missing(self) -> list[int]:
        """The statements that did not run, and could have."""
        return [n for n in self.statements if not self.lines[n] and n not in self.file.dead]

    @property
    def dead(self) -> list[int]:
        """The statements that the verifier removed in every load."""
        return [n for n in self.statements if n in self.file.dead]

    @property
    def branches(self) -> list[Branch]:
        """The conditions that count."""
        return [branch for branch in self.file.branches if branch.line not in self.excluded]

    @property
    def functions(self) -> list[FunctionLines]:
        """The functions that count."""
        return [f for f in self.file.functions if f.line not in self.excluded]

    @property
    def outcomes(self) -> tuple[int, int]:
        """How many outcomes of conditions there are, and how many were seen."""
        seen = sum((b.true > 0) + (b.false > 0) for b in self.branches)
        return 2 * len(self.branches), seen

    @property
    def percent(self) -> float:
        """Statements that ran, per cent; dead ones are not counted."""
        counted = len(self.statements) - len(self.dead)
        return 100.0 * (counted - len(self.missing)) / counted if counted else 100.0


def summaries(files: Iterable[FileLines]) -> list[FileSummary]:
    """Return the summaries of sources; of one that is gone every line with code counts."""
    return [FileSummary(file, _text(file.path)) for file in files]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""

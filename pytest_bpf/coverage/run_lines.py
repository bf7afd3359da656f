"""The lines that ran between two moments, as a value: of one test run, or of a workload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.coverage.annotation import annotate
from pytest_bpf.errors import UnknownNameError, near_matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.coverage.values import FileLines


@dataclass(frozen=True)
class BranchCount:
    """A condition that was evaluated: its place and text, how often it was true, and false."""

    file: str
    line: int
    text: str
    true: int
    false: int


class LineCounts(Mapping["int | tuple[str, int]", int]):
    """How often each line ran: ``lines[26]`` of the object's source, ``lines["parse.h", 12]``.

    It has every line with code, those that did not run with 0; ``executed`` are the lines of the
    source that ran. As text it is the source with the counts. Raises `UnknownNameError` for a line
    without code, and for a file that has none.
    """

    def __init__(self, files: Sequence[FileLines], path: str) -> None:
        self.files = tuple(files)
        self._path = path

    @property
    def executed(self) -> list[int]:
        """The lines of the object's source that ran."""
        return [line for line, count in self._source().items() if count]

    @cached_property
    def branches(self) -> tuple[BranchCount, ...]:
        """The conditions that were evaluated, with how often they were true and false."""
        return tuple(
            BranchCount(file.path, b.line, _text(file.path, b.place), b.true, b.false)
            for file in self.files
            for b in file.branches
            if b.true or b.false
        )

    def __getitem__(self, place: int | tuple[str, int]) -> int:
        name, line = (self._path, place) if isinstance(place, int) else place
        counts = self._source() if isinstance(place, int) else self._file(name).lines
        if line not in counts:
            raise UnknownNameError(f"{Path(name).name}:{line} has no code that could run")
        return counts[line]

    def __iter__(self) -> Iterator[int | tuple[str, int]]:
        for file in self.files:
            name = Path(file.path).name
            yield from file.lines if file.path == self._path else ((name, n) for n in file.lines)

    def __len__(self) -> int:
        return sum(len(file.lines) for file in self.files)

    def __str__(self) -> str:
        return annotate(self.files)

    def __repr__(self) -> str:
        return f"<LineCounts of {Path(self._path).name}: {len(self.executed)} lines ran>"

    def _source(self) -> Mapping[int, int]:
        return next((file.lines for file in self.files if file.path == self._path), {})

    def _file(self, name: str) -> FileLines:
        for file in self.files:
            if file.path == name or file.path.endswith(f"/{name}"):
                return file
        names = [Path(file.path).name for file in self.files]
        raise UnknownNameError(f"there is no code of a file {name!r}{near_matches(name, names)}")


def _text(path: str, place: tuple[int, int, int, int]) -> str:
    """Return the text of a condition, its lines as one."""
    line, column, end_line, end_column = place
    try:
        lines = Path(path).read_text(errors="replace").splitlines()[line - 1 : end_line]
    except OSError:
        return ""
    if lines:
        lines[-1] = lines[-1][: end_column - 1]
        lines[0] = lines[0][column - 1 :]
    return " ".join(text.strip() for text in lines)

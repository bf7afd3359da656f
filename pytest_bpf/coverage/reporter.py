"""coverage.py's side: its reports have C as they have Python.

The lines and branches that a source has are not in coverage.py's data. They are kept in the cache
by the source's path and content, so that ``coverage report`` finds them later.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from re import compile as pattern
from typing import TYPE_CHECKING, Any

from coverage import CodeRegion, CoveragePlugin, FileReporter
from coverage.exceptions import NoSource

from pytest_bpf.cache import digest, open_cache
from pytest_bpf.coverage.arcs import arcs
from pytest_bpf.coverage.c_source import NO_COVER, CSource, parse
from pytest_bpf.coverage.statements import statement_lines
from pytest_bpf.coverage.values import FileLines, merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from re import Pattern

NAME = "pytest_bpf.coverage.LinesPlugin"
"""What coverage.py calls `LinesPlugin` in its data."""

EXCLUDE = ("report:exclude_lines", "report:exclude_also")


class LinesPlugin(CoveragePlugin):
    """Says which lines and branches a C source has."""

    def __init__(self) -> None:
        self._patterns: list[Pattern[str]] = [NO_COVER]

    def configure(self, config: Any) -> None:
        """Take over what the configuration excludes."""
        lines = [line for option in EXCLUDE for line in config.get_option(option) or ()]
        self._patterns = [NO_COVER, *map(pattern, lines)]

    def file_tracer(self, filename: str) -> None:  # noqa: ARG002 - coverage.py's signature
        """Trace no Python file."""
        return

    def file_reporter(self, filename: str) -> LinesReporter:
        """Return what a source has to report."""
        return LinesReporter(filename, self._patterns)


class LinesReporter(FileReporter):
    """What a C source has: statements, ways from line to line, what is not to count."""

    def __init__(self, filename: str, patterns: Sequence[Pattern[str]]) -> None:
        super().__init__(filename)
        self._patterns = patterns

    @cached_property
    def _text(self) -> str:
        try:
            return Path(self.filename).read_text(errors="replace")
        except OSError as error:
            raise NoSource(f"{self.filename}: cannot be read: {error.strerror}") from None

    @cached_property
    def _file(self) -> FileLines:
        file = recall(self.filename, self._text)
        if file is None:
            raise NoSource(
                f"{self.filename} is not what it was when its lines were counted: run the tests "
                "again"
            )
        return file

    @cached_property
    def _c(self) -> CSource:
        return parse(self._text)

    @cached_property
    def _excluded(self) -> set[int]:
        return self._c.excluded(self._patterns)

    @cached_property
    def _arcs(self) -> set[tuple[int, int]]:
        return {arc for arc in arcs(self._c, self._file) if arc[0] not in self._excluded}

    def source(self) -> str:
        """Return the text."""
        return self._text

    def lines(self) -> set[int]:
        """Return the lines where statements start."""
        return statement_lines(self._c, self._file) - self._excluded

    def excluded_lines(self) -> set[int]:
        """Return the lines that are not to count."""
        return self._excluded & self._file.lines.keys()

    def arcs(self) -> set[tuple[int, int]]:
        """Return the ways from lines that go on in several ways."""
        return self._arcs

    def exit_counts(self) -> dict[int, int]:
        """Return in how many ways these lines go on."""
        lines = [start for start, _ in self._arcs]
        return {line: lines.count(line) for line in lines}

    def missing_arc_description(self, start: int, end: int, executed_arcs: Any = None) -> str:  # noqa: ARG002
        """Say which way was not taken."""
        return f"line {start} didn't {self.arc_description(start, end)}"

    def arc_description(self, start: int, end: int) -> str:
        """Say where a way leads."""
        if end == -start:
            return f"run the rest of line {start}"
        return "return from the function" if end < 0 else f"jump to line {end}"

    def code_regions(self) -> Iterable[CodeRegion]:
        """Return the functions."""
        return [
            CodeRegion("function", f.name, f.line, set(range(f.line, f.end_line + 1)))
            for f in self._file.functions
        ]

    def code_region_kinds(self) -> Iterable[tuple[str, str]]:
        """Return what there are regions of."""
        return [("function", "functions")]


def executed_arcs(file: FileLines) -> set[tuple[int, int]]:
    """Return the arcs that a run took: those of branches, and one into each line that ran."""
    source = parse(Path(file.path).read_text(errors="replace"))
    taken = {arc for arc, count in arcs(source, file).items() if count}
    return taken | {(-line, line) for line, count in file.lines.items() if count}


def remember(files: Iterable[FileLines]) -> None:
    """Keep which lines and branches the sources have, for reports of later processes, too."""
    for file in files:
        try:
            text = Path(file.path).read_text(errors="replace")
        except OSError:
            continue
        earlier = recall(file.path, text)
        (both,) = merge([file, earlier] if earlier else [file])
        if earlier is not None:
            both = replace(both, approximate=file.approximate and earlier.approximate)
        open_cache().write(json.dumps(_bare(both)).encode(), "lines", _key(file.path, text))


def recall(path: str, text: str) -> FileLines | None:
    """Return the lines and branches of a source; None when they are not known of this text."""
    try:
        content = open_cache().read("lines", _key(path, text))
        return FileLines.from_dict(json.loads(content)) if content else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bare(file: FileLines) -> dict[str, Any]:
    """Return a file without counts."""
    plain = file.as_dict()
    plain["lines"] = [(line, 0) for line in file.lines]
    plain["branches"] = [(*branch.place, 0, 0) for branch in file.branches]
    plain["functions"] = [(f.name, f.line, f.end_line, 0) for f in file.functions]
    return plain


def _key(path: str, text: str) -> str:
    return digest("lines", path, text)

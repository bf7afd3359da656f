"""What is counted of a source: lines, branches and functions; values, no kernel and no object."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, order=True)
class Branch:
    """A condition from ``line`` and ``column`` up to ``end_line`` and ``end_column``.

    ``true`` and ``false`` are how often it was so; of a ``case`` label, how often the value was
    this one, and another one.
    """

    line: int
    column: int
    end_line: int
    end_column: int
    true: int = 0
    false: int = 0

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Where it stands."""
        return self.line, self.column, self.end_line, self.end_column


@dataclass(frozen=True)
class FunctionLines:
    """A function: its first and its last line, and how often it was called."""

    name: str
    line: int
    end_line: int
    count: int = 0


@dataclass(frozen=True)
class FileLines:
    """What ran of one source file: ``path`` is absolute.

    ``lines`` has the count of each line with code, ``dead`` those lines of them that the verifier
    removed in every load, because constants decided them. ``approximate`` says that the compiler
    may have moved code from one line to another before it was counted. ``build`` tells builds of
    one source apart, by what they were compiled with; it is empty in sums over all of them.
    """

    path: str
    lines: Mapping[int, int] = field(default_factory=dict)
    branches: tuple[Branch, ...] = ()
    functions: tuple[FunctionLines, ...] = ()
    dead: frozenset[int] = frozenset()
    approximate: bool = False
    build: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as `from_dict` takes them."""
        return {
            "path": self.path,
            "lines": sorted(self.lines.items()),
            "branches": [(*b.place, b.true, b.false) for b in self.branches],
            "functions": [(f.name, f.line, f.end_line, f.count) for f in self.functions],
            "dead": sorted(self.dead),
            "approximate": self.approximate,
            "build": self.build,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> FileLines:
        """Return the value that `as_dict` made plain."""
        return cls(
            plain["path"],
            {line: count for line, count in plain["lines"]},  # noqa: C416 (mypy wants pairs)
            tuple(Branch(*branch) for branch in plain["branches"]),
            tuple(FunctionLines(*function) for function in plain["functions"]),
            frozenset(plain["dead"]),
            plain["approximate"],
            plain["build"],
        )


def merge(files: Iterable[FileLines]) -> list[FileLines]:
    """Return one value for each path and build: counts are added, dead is what all call dead."""
    by_path: dict[tuple[str, str], list[FileLines]] = {}
    for file in files:
        by_path.setdefault((file.path, file.build), []).append(file)
    return [_merge(*key, some) for key, some in sorted(by_path.items())]


def merge_builds(files: Iterable[FileLines]) -> list[FileLines]:
    """Return one value for each path, over all builds."""
    return merge(replace(file, build="") for file in files)


def _merge(path: str, build: str, files: list[FileLines]) -> FileLines:
    if len(files) == 1:
        return files[0]
    lines: Counter[int] = Counter()
    branches: dict[tuple[int, int, int, int], tuple[int, int]] = {}
    functions: dict[tuple[str, int, int], int] = {}
    for file in files:
        for line, count in file.lines.items():
            lines[line] += count
        for branch in file.branches:
            true, false = branches.get(branch.place, (0, 0))
            branches[branch.place] = (true + branch.true, false + branch.false)
        for f in file.functions:
            key = (f.name, f.line, f.end_line)
            functions[key] = functions.get(key, 0) + f.count
    alive = {line for file in files for line in file.lines.keys() - file.dead}
    return FileLines(
        path,
        dict(sorted(lines.items())),
        tuple(sorted(Branch(*place, *counts) for place, counts in branches.items())),
        tuple(FunctionLines(*key, count) for key, count in functions.items()),
        frozenset(lines) - alive,
        any(file.approximate for file in files),
        build,
    )

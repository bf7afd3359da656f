"""C with what its lines did, as a report keeps it: counts, and costs where those were counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_bpf.budgets import shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class AnnotatedLine:
    """A line of C: ``count`` is how often it ran; None where it has no code or nobody counted.

    ``instructions`` are those of the machine, all runs together; ``helpers`` the calls of helpers,
    as ``"3 x bpf_map_lookup_elem"``.
    """

    number: int
    text: str
    count: int | None = None
    instructions: int | None = None
    helpers: str = ""


@dataclass(frozen=True)
class AnnotatedFile:
    """The lines of one source that are worth reading: functions that ran, or lines that cost."""

    path: str
    lines: tuple[AnnotatedLine, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, without what says nothing."""
        rows = [
            {name: value for name, value in asdict(line).items() if value not in (None, "")}
            for line in self.lines
        ]
        return {"path": self.path, "lines": [{"text": "", **row} for row in rows]}

    @classmethod
    def from_dict(cls, content: object, where: str) -> AnnotatedFile:
        """Read one; raises `shape.ShapeError` for what is none."""
        values = shape.mapping(content, where)
        lines = shape.array(shape.member(values, "lines", where), f"{where}.lines")
        return cls(
            shape.string(shape.member(values, "path", where), f"{where}.path"),
            tuple(_line(shape.mapping(line, f"{where}.lines"), f"{where}.lines") for line in lines),
        )


def merge(files: Iterable[AnnotatedFile]) -> tuple[AnnotatedFile, ...]:
    """Return each source once, with the sums of its lines; of one that has changed the last."""
    by_path: dict[str, dict[int, AnnotatedLine]] = {}
    for file in files:
        lines = by_path.setdefault(file.path, {})
        if any(
            line.number in lines and lines[line.number].text != line.text for line in file.lines
        ):
            lines.clear()
        for line in file.lines:
            before = lines.get(line.number)
            lines[line.number] = line if before is None else _sum(before, line)
    return tuple(
        AnnotatedFile(path, tuple(line for _, line in sorted(lines.items())))
        for path, lines in by_path.items()
    )


def _sum(one: AnnotatedLine, other: AnnotatedLine) -> AnnotatedLine:
    calls: Counter[str] = Counter()
    for text in filter(None, f"{one.helpers}, {other.helpers}".split(", ")):
        number, _, helper = text.partition(" x ")
        calls[helper] += int(number)
    return replace(
        one,
        count=_sum_of(one.count, other.count),
        instructions=_sum_of(one.instructions, other.instructions),
        helpers=helper_calls(calls),
    )


def _sum_of(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


def helper_calls(calls: Mapping[str, int]) -> str:
    """Return the calls of helpers as a line has them.

    >>> helper_calls({"bpf_map_lookup_elem": 3, "bpf_redirect": 1})
    '3 x bpf_map_lookup_elem, 1 x bpf_redirect'
    """
    return ", ".join(f"{count} x {name}" for name, count in calls.items())


def _line(values: Mapping[str, Any], where: str) -> AnnotatedLine:
    return AnnotatedLine(
        int(shape.number(shape.member(values, "number", where), f"{where}.number")),
        shape.string(shape.member(values, "text", where), f"{where}.text"),
        _optional(values, "count", where),
        _optional(values, "instructions", where),
        shape.string(values.get("helpers", ""), f"{where}.helpers"),
    )


def _optional(values: Mapping[str, Any], name: str, where: str) -> int | None:
    return int(shape.number(values[name], f"{where}.{name}")) if name in values else None

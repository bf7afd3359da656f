"""The C around a place that the verifier complains about, and other lines that explain it."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_bpf.objects.elf import SourceLine

LINES_BEFORE = 4
"""How many lines of C are shown before the one that the message is about."""

BUSIEST_LINES = 3
"""How many of the lines that took the most states are named."""

_ACQUIRED = re.compile(r"(?:alloc_insn=|acquired at insn )(\d+)")
_VISIT = re.compile(r"^(\d+): \(", re.MULTILINE)


def display_path(file: str) -> str:
    """Return a path as seen from the current folder, where it lies below that."""
    return os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file


def line_at(
    instruction: int, start: tuple[str, int], source_lines: Sequence[SourceLine]
) -> SourceLine | None:
    """Return the source line of one of a program's instructions, None where that is not known.

    ``start`` is the program's section and its first instruction there.
    """
    section, first = start
    before = [
        line
        for line in source_lines
        if line.section == section and line.line and first <= line.start <= first + instruction
    ]
    return max(before, key=lambda line: line.start) if before else None


def excerpt(place: str, text: str) -> list[str]:
    """Return the C at ``place`` (``"file.c:12"``) with the lines before it, numbered.

    ``text`` is the line itself, all there is to show when the file cannot be read.
    """
    file, _, number = place.rpartition(":")
    lines = _read(file)
    last = int(number) if number.isdecimal() else 0
    if not 0 < last <= len(lines):
        return [text] if text else []
    width = len(number)
    return [
        f"{'>' if line == last else ' '} {line:>{width}} | {lines[line - 1].expandtabs(4)}".rstrip()
        for line in range(max(1, last - LINES_BEFORE), last + 1)
    ]


def notes(
    name: str,
    log: str,
    start: tuple[str, int],
    source_lines: Sequence[SourceLine],
    whole_log: Callable[[], str] | None,
) -> Iterator[str]:
    """Yield the other lines of C that explain a refusal, by the name of its explanation."""
    match = _ACQUIRED.search(log[-4096:]) if name == "unreleased reference" else None
    if match and (line := line_at(int(match[1]), start, source_lines)):
        yield f"    acquired at {display_path(line.file)}:{line.line}: {line.text}"
    if name == "too complex" and whole_log is not None:
        visits: Counter[tuple[str, int, str]] = Counter()
        for instruction, count in Counter(map(int, _VISIT.findall(whole_log()))).items():
            if line := line_at(instruction, start, source_lines):
                visits[line.file, line.line, line.text] += count
        for (file, number, text), count in visits.most_common(BUSIEST_LINES):
            yield f"    {count} instructions looked at for {display_path(file)}:{number}: {text}"


def _read(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return []

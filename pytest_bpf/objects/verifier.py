"""What the verifier said: its statistics when it accepts, its reason and place when it refuses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import VerifierError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.objects.elf import SourceLine

END = 1 << 16
"""How many of the log's last characters say what went wrong."""

SHOWN_LINES = 8
"""How many of the log's last lines an error shows."""


@dataclass(frozen=True)
class VerifierStats:
    """The verifier's own figures for one program, by veristat's names.

    ``total_insns`` is how many instructions it processed, over all paths; ``stack_depth`` is in
    bytes, the sum over the program and its subprograms.
    """

    total_insns: int = 0
    max_states_per_insn: int = 0
    total_states: int = 0
    peak_states: int = 0
    mark_read: int = 0
    stack_depth: int = 0


_PROCESSED = re.compile(
    r"processed (?P<total_insns>\d+) insns \(limit \d+\) "
    r"max_states_per_insn (?P<max_states_per_insn>\d+) "
    r"total_states (?P<total_states>\d+) peak_states (?P<peak_states>\d+) "
    r"mark_read (?P<mark_read>\d+)"
)
_STACK = re.compile(r"^stack depth (?P<depths>\d+(?:\+\d+)*)", re.MULTILINE)
_SOURCE = re.compile(r"^; (?P<text>.*?)(?: @ (?P<file>\S+):(?P<line>\d+))?$")
_TRAILER = re.compile(
    r"^(processed \d+ insns|verification time|stack depth|peak_states|-- END|max_states_per_insn)"
)
_STATE = re.compile(
    r"^(\d+: |from \d+ to |mark_precise: |last_idx |regs=|parent |; |Validating |caller:|callee:"
    r"|frame\d+: |arg#\d+ reference type)"
)
_STATES_SHOWN = re.compile(r"^(cur|old) state: ")
_INSTRUCTION = re.compile(r"^(\d+): \(|\binsn (\d+)", re.MULTILINE)


def stats(log: str) -> VerifierStats:
    """Read the figures out of a log that ``BPF_LOG_STATS`` made; zeros where it has none."""
    processed, stack = _PROCESSED.search(log), _STACK.search(log)
    figures = {k: int(v) for k, v in processed.groupdict().items()} if processed else {}
    depth = sum(map(int, stack["depths"].split("+"))) if stack else 0
    return VerifierStats(**figures, stack_depth=depth)


def reason(log: str) -> str:
    """Return the verifier's own words: what it says after the last state it shows."""
    said = _without_statistics(log[-END:])
    first = next((i for i, line in enumerate(reversed(said)) if _STATE.match(line)), len(said))
    words = said[len(said) - first :] or said[-1:]
    return "; ".join(line for line in words if not _STATES_SHOWN.match(line))


def _without_statistics(log: str) -> list[str]:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return [line for line in lines if not _TRAILER.match(line)]


def location(log: str, start: tuple[str, int], known: Sequence[SourceLine]) -> tuple[str, str]:
    """Return ``("file.c:12", "the source line")`` of the last line that the verifier looked at.

    ``start`` is the program's section and its first instruction there, ``known`` the object's line
    information. Kernels since 6.10 print file and line themselves; for older ones the text is
    looked up, first in the program's own section. A log without any is left with the number of an
    instruction, which is looked up too.
    """
    end = log[-END:]
    quoted = [
        found for line in end.splitlines() if (found := _SOURCE.match(line)) and found["text"]
    ]
    if not quoted:
        return _by_instruction(end, start, known)
    last = quoted[-1]
    text = last["text"].strip()
    same = [k for k in known if k.text == text]
    printed = [k for k in same if last["line"] and k.line == int(last["line"])]
    best = sorted(printed or same, key=lambda k: k.section != start[0])
    if best:
        return f"{_from_here(best[0].file)}:{best[0].line}", text
    return (f"{last['file']}:{last['line']}" if last["file"] else ""), text


def _by_instruction(
    log: str, start: tuple[str, int], known: Sequence[SourceLine]
) -> tuple[str, str]:
    numbers = _INSTRUCTION.findall(log)
    if not numbers:
        return "", ""
    section, first = start
    at = first + int(numbers[-1][0] or numbers[-1][1])
    before = [k for k in known if k.section == section and k.line and first <= k.start <= at]
    if not before:
        return "", ""
    line = max(before, key=lambda k: k.start)
    return f"{_from_here(line.file)}:{line.line}", line.text


def _from_here(file: str) -> str:
    """Return a path as seen from the current folder, where it lies below that."""
    return os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file


def rejection(
    path: Path,
    program: str,
    start: tuple[str, int],
    *,
    code: int,
    log: str,
    known: Sequence[SourceLine],
) -> VerifierError:
    """Return the error for a rejected program: source line first, then the end of the log."""
    place, text = location(log, start, known)
    why = reason(log)
    lines = _without_statistics(log[-END:])
    tail, count = lines[-SHOWN_LINES:], log.count("\n")
    left_out = f" (the last {len(tail)} of {count} lines; the error's .log has all)"
    message = [f"{place or path}: the verifier rejected program {program!r}: {why}"]
    if text:
        message.append(f"    {text}")
    message.append(f"verifier log{left_out if len(lines) > len(tail) else ''}:")
    message.extend(f"    {line}" for line in tail)
    return VerifierError(
        "\n".join(message), errno=code, program=program, location=place, reason=why, log=log
    )

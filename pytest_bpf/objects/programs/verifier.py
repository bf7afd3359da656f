"""The verifier's answer: its statistics when it accepts, its reason and place when it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import VerifierError
from pytest_bpf.objects.programs.excerpts import display_path, excerpt, line_at, notes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

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
_BACK_EDGE = re.compile(r"back-edge from insn \d+ to (\d+)|infinite loop detected at insn (\d+)")
_STEP = re.compile(r"^\d+: \(", re.MULTILINE)
_INSTRUCTION = re.compile(r"^(\d+): \(|\binsn (\d+)", re.MULTILINE)


def stats(log: str) -> VerifierStats:
    """Read the figures out of a log that ``BPF_LOG_STATS`` made; zeros where it has none."""
    processed, stack = _PROCESSED.search(log), _STACK.search(log)
    figures = {k: int(v) for k, v in processed.groupdict().items()} if processed else {}
    depth = sum(map(int, stack["depths"].split("+"))) if stack else 0
    return VerifierStats(**figures, stack_depth=depth)


def has_level(log: str, level: int) -> bool:
    """Say whether the log of a program that was accepted is as long as ``level`` makes it.

    Level 1 shows the path that led to a refusal, so nothing of a program that was accepted.
    """
    return has_path(log) if level & 2 else bool(log)


def has_path(log: str) -> bool:
    """Say whether a log shows instructions, rather than figures and a reason alone."""
    return bool(_STEP.search(log))


def reason(log: str) -> str:
    """Return the verifier's own words: what it says after the last state it shows."""
    lines = _without_statistics(log[-END:])
    first = next((i for i, line in enumerate(reversed(lines)) if _STATE.match(line)), len(lines))
    words = lines[len(lines) - first :] or lines[-1:]
    return "; ".join(line for line in words if not _STATES_SHOWN.match(line))


def with_reason(log: str, short: str) -> str:
    """Return a log with its end: kernels before 6.4 cut one that is longer than its buffer.

    ``short`` is the log of the same refusal without instructions.
    """
    why = reason(short)
    is_whole = not why or why in log[-END:] or _PROCESSED.search(log[-END:])
    return log if is_whole else f"{log.rpartition(chr(10))[0]}\n{short}"


def _without_statistics(log: str) -> list[str]:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return [line for line in lines if not _TRAILER.match(line)]


def location(
    log: str, start: tuple[str, int], source_lines: Sequence[SourceLine]
) -> tuple[str, str]:
    """Return ``("file.c:12", "the source line")`` of the last line that the verifier looked at.

    ``start`` is the program's section and its first instruction there, ``source_lines`` the
    object's line information. Kernels since 6.10 print file and line themselves; for older ones the
    text is looked up, first in the program's own section. A log without any is left with the number
    of an instruction, which is looked up too.
    """
    end = log[-END:]
    quotes = [
        quote for line in end.splitlines() if (quote := _SOURCE.match(line)) and quote["text"]
    ]
    if not quotes:
        return _by_instruction(end, start, source_lines)
    last = quotes[-1]
    text = last["text"].strip()
    same = [entry for entry in source_lines if entry.text == text]
    exact = [k for k in same if last["line"] and k.line == int(last["line"])]
    best = sorted(exact or same, key=lambda k: k.section != start[0])
    if best:
        return f"{display_path(best[0].file)}:{best[0].line}", text
    return (f"{last['file']}:{last['line']}" if last["file"] else ""), text


def _place(log: str, start: tuple[str, int], source_lines: Sequence[SourceLine]) -> tuple[str, str]:
    """Return the place that is to blame: for a loop, where it starts; else as `location`."""
    jump = _BACK_EDGE.search(log[-END:])
    if jump and (line := line_at(int(jump[1] or jump[2]), start, source_lines)):
        return f"{display_path(line.file)}:{line.line}", line.text
    return location(log, start, source_lines)


def _by_instruction(
    log: str, start: tuple[str, int], source_lines: Sequence[SourceLine]
) -> tuple[str, str]:
    numbers = _INSTRUCTION.findall(log)
    if not numbers:
        return "", ""
    line = line_at(int(numbers[-1][0] or numbers[-1][1]), start, source_lines)
    return (f"{display_path(line.file)}:{line.line}", line.text) if line else ("", "")


def rejection(
    path: Path,
    program: str,
    start: tuple[str, int],
    *,
    code: int,
    log: str,
    source_lines: Sequence[SourceLine],
    whole_log: Callable[[], str] | None = None,
) -> VerifierError:
    """Return the error for a rejected program: its place, what it means, the C, the log's end.

    ``whole_log`` gives the log of level 2; it is asked when the program is too complex.
    """
    from pytest_bpf.objects.programs.explanations import explanation  # noqa: PLC0415 - only here

    why = reason(log)
    meaning = explanation(why)
    place, text = _place(log, start, source_lines)
    lines = _without_statistics(log[-END:])
    tail, count = lines[-SHOWN_LINES:], log.count("\n")
    left_out = f" (the last {len(tail)} of {count} lines; the error's .log has all)"
    message = [f"{place or path}: the verifier rejected program {program!r}: {why}"]
    message += [f"    {line}" for line in excerpt(place, text)]
    if meaning:
        message.append(f"in plain words: {meaning.meaning};")
        message.append(f"    usually mended so: {meaning.remedy}")
        whole = whole_log if meaning.name == "too complex" else None
        message += notes(meaning.name, log, start, source_lines, whole)
    message.append(f"verifier log{left_out if len(lines) > len(tail) else ''}:")
    message.extend(f"    {line}" for line in tail)
    return VerifierError(
        "\n".join(message),
        errno=code,
        program=program,
        location=place,
        reason=why,
        log=log,
        object=str(path),
    )

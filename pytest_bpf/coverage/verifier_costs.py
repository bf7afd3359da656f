"""What each line of C costs the verifier: where the instructions went that it processed.

The program is loaded once more for the log of level 2, which has a line for each instruction that
the verifier processes, and one where it stops because it has been there in the same state.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_bpf.coverage.cost_rows import CostRow, annotated_text
from pytest_bpf.coverage.instruction_lines import instruction_lines
from pytest_bpf.errors import LoadError
from pytest_bpf.objects.programs.twin import LogTooLongError, load_with_log

if TYPE_CHECKING:
    from pytest_bpf.kernel.programs.flow import Flow
    from pytest_bpf.objects import Program

BYTES_OF_LOG = 640
"""For each instruction, at first; four times as many when they are too few."""

LONGEST_LOG = (1 << 30) - mmap.PAGESIZE
"""More than the kernel takes is `ENOSPC` as well."""

STEP = re.compile(rb"^(?:(\d+): (?:\(|(safe))|from (\d+) to (\d+): (safe)?)", re.MULTILINE)


@dataclass(frozen=True)
class LineVerification:
    """What one line cost the verifier.

    ``insns`` are the instructions that it processed there, over all paths; ``paths`` is how often
    it went back to a jump of this line to take the other way, and ``known`` how often it stopped
    here, because it had been here in a state that covers this one.
    """

    file: str
    line: int
    insns: int
    paths: int
    known: int


Steps = tuple["Flow", Counter[int], Counter[int], Counter[int]]
"""The instructions, and how often each was processed, left again, and known."""


class VerifierCosts(tuple[LineVerification, ...]):
    """The costs of a program's lines, by file and line; as text the source with its costs."""

    __slots__ = ()

    @property
    def insns(self) -> int:
        """The instructions of all lines: the program's ``verified_insns``."""
        return sum(cost.insns for cost in self)

    def rows(self) -> list[CostRow]:
        """Return what an annotated source shows."""
        return [CostRow(cost.file, cost.line, cost.insns, _remark(cost)) for cost in self]

    def __str__(self) -> str:
        return annotated_text(self.rows(), "instructions that the verifier processed")


def verifier_costs(program: Program) -> VerifierCosts:
    """Return what the lines of a program that libbpf loaded here cost the verifier.

    Raises `UnavailableError` for an object without line information, and `LoadError` when the
    program cannot be loaded again, or when its log is longer than 1 GiB.
    """
    code, insns, paths, known = _steps(program)
    lines = instruction_lines(program, code)
    total = sum(insns.values())
    if total != program.verified_insns:
        raise LoadError(
            f"program {program.name!r}: the verifier processed {program.verified_insns:,} "
            f"instructions, and its log shows {total:,}: this kernel's log is not understood"
        )
    sums: dict[tuple[str, int], list[int]] = {}
    for number, counter in enumerate((insns, paths, known)):
        for at, count in counter.items():
            sums.setdefault(lines[at], [0, 0, 0])[number] += count
    return VerifierCosts(LineVerification(*line, *three) for line, three in sorted(sums.items()))


def _steps(program: Program) -> Steps:
    size = program.verified_insns * BYTES_OF_LOG + (1 << 16)
    while True:
        size = min(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE, LONGEST_LOG)
        steps = _steps_in(program, size)
        if steps is not None:
            return steps
        if size == LONGEST_LOG:
            raise LoadError(
                f"program {program.name!r}: the verifier's log is longer than 1 GiB, so what its "
                "lines cost the verifier is not known"
            )
        size *= 4


def _steps_in(program: Program, size: int) -> Steps | None:
    """Load the program with so much room for its log; None when that is too little."""
    log = mmap.mmap(-1, size)  # what it does not fill costs nothing
    try:
        code = load_with_log(program, (ctypes.c_char * size).from_buffer(log))
    except LogTooLongError:
        return None
    return (code, *_counts(log))


def _counts(log: Any) -> tuple[Counter[int], Counter[int], Counter[int]]:
    insns: Counter[int] = Counter()
    paths: Counter[int] = Counter()
    known: Counter[int] = Counter()
    for step in STEP.finditer(log):
        at, stopped, left, there, stopped_there = step.groups()
        if at is not None:
            insns[int(at)] += 1
            known[int(at)] += stopped is not None
        else:
            paths[int(left)] += 1
            if stopped_there is not None:
                insns[int(there)] += 1
                known[int(there)] += 1
    return insns, paths, known


def _remark(cost: LineVerification) -> str:
    parts = [f"{cost.paths} x another way"] * (cost.paths > 0)
    parts += [f"{cost.known} x known"] * (cost.known > 0)
    return f"  ({', '.join(parts)})" if parts else ""

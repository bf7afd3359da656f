"""Where runs went: the lines and blocks that were reached, and the way of one run through the C."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.fuzz.subject import blocks_hit, name_setter
from pytest_bpf.kernel.programs.runner import REFUSED
from pytest_bpf.kernel.values.actions import action

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_bpf.fuzz.subject import Subject
    from pytest_bpf.objects.elf import SourceLine

LINES = 16
"""The most lines of a way that are shown, the last ones."""


@dataclass(frozen=True)
class Reach:
    """How much of a program inputs reached: its blocks and its lines of C, and how many it has."""

    blocks: int
    all_blocks: int
    lines: int
    all_lines: int

    @property
    def lines_text(self) -> str:
        """Lines as text; a program without line information has none."""
        return f"{self.lines} of {self.all_lines}" if self.all_lines else "not known"

    @property
    def blocks_text(self) -> str:
        """Blocks as text."""
        return f"{self.blocks} of {self.all_blocks}"


def reach(subject: Subject, counters: bytes) -> Reach:
    """Return what was reached, by the hits of all runs."""
    blocks = blocks_hit(subject.hit.build, counters)
    lines = {(line.file, line.line) for line in subject.lines().values()}
    hit = {(line.file, line.line) for line in _lines_of(subject, blocks)}
    return Reach(len(blocks), len(subject.flow.blocks), len(hit), len(lines))


def path(subject: Subject, sequence: Sequence[bytes]) -> list[str]:
    """Return the lines of C that the last of some inputs takes, and what comes of it."""
    subject.reset()
    set_name = name_setter(subject.shape)
    kept = bytes(subject.hit.counters)
    answer = REFUSED
    for data in sequence:
        subject.hit.clear()
        if set_name is not None:
            set_name(data)
        answer = subject.run(data)
    lines = _lines_of(subject, blocks_hit(subject.hit.build, subject.hit.counters))
    subject.hit.counters[:] = kept
    places = {(line.file, line.line): line.text for line in lines}
    texts = [
        f"{os.path.basename(file)}:{line}: {text}"  # noqa: PTH119 (a name from BTF)
        for (file, line), text in sorted(places.items())
    ]
    left = [f"... {len(texts) - LINES} lines before these"] if len(texts) > LINES else []
    end = "refused by the kernel"
    if subject.stimulus is not None:
        end = "ends" if lines else "does not run"
    elif answer is not REFUSED:
        verdict = action(subject.program.type, answer[0])
        end = f"returns {getattr(verdict, 'name', verdict)}"
    return [*left, *texts[-LINES:], end]


def run_length(subject: Subject, corpus: Sequence[bytes]) -> float:
    """Return how many instructions a run takes, on average over some inputs."""
    with subject.twin("count") as twin:
        run = subject.runner_of(twin)
        set_name = name_setter(subject.shape)
        subject.reset()
        runs = 0
        for data in corpus:
            if set_name is not None:
                set_name(data)
            runs += run(data) is not REFUSED
        counts = twin.counts()
        program = twin.build.flow
        ends = [*program.blocks[1:], len(program.instructions)]
        total = 0
        for start, end, count in zip(program.blocks, ends, counts, strict=False):
            total += count * sum(at not in program.second for at in range(start, end))
    return total / runs if runs else 0.0


def _lines_of(subject: Subject, blocks: Iterable[int]) -> list[SourceLine]:
    program, lines = subject.flow, subject.lines()
    ends = dict(zip(program.blocks, [*program.blocks[1:], len(program.instructions)], strict=True))
    places = sorted(lines)
    result = []
    for start in blocks:
        inside = [at for at in places if start <= at < ends[start]]
        before = [at for at in places if program.function_of(start) <= at <= start]
        result += [lines[at] for at in {*before[-1:], *inside}]
    return result

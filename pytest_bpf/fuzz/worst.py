"""The dearest input: the one for which a program runs the most instructions."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from pytest_bpf.fuzz.exact import instruction_counter, require_count
from pytest_bpf.fuzz.inputs import seeds
from pytest_bpf.fuzz.mutation import hints, mutator
from pytest_bpf.fuzz.paths import path
from pytest_bpf.fuzz.place import one_subject
from pytest_bpf.fuzz.search import limit, words_of
from pytest_bpf.fuzz.shrink import shrink
from pytest_bpf.fuzz.subject import name_setter
from pytest_bpf.kernel.programs.runner import REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_bpf.fuzz.subject import Subject
    from pytest_bpf.objects import Object

COUNT = 10_000
"""How many inputs are tried, unless it is said."""

BEST, FEW = 64, 4
"""How many of the dearest inputs others are made of, and of how many every second one."""


@dataclass(frozen=True)
class WorstCase:
    """The dearest input found: ``insns`` are the instructions that the program runs for it.

    A call of a helper counts as one. ``exactly`` are those of the machine, which exact mode counts,
    helpers included and those of an empty program subtracted: there the input is the one that takes
    most of them; None where they were not measured. ``data`` is the packet, ``text`` the whole
    input, and ``way`` the lines of C. ``inputs`` is how many were tried: there may be a more
    expensive one.
    """

    insns: int
    exactly: float | None
    data: bytes
    text: str
    way: tuple[str, ...]
    inputs: int

    @property
    def instructions(self) -> float:
        """The machine's instructions; raises `NotMeasuredError` outside of exact mode."""
        return require_count(self.exactly)

    def __str__(self) -> str:
        exactly = "" if self.exactly is None else f", {self.exactly:.0f} of the machine,"
        return f"{self.insns} instructions{exactly} for\n{self.text}"


def find_worst(
    obj: Object,
    *,
    program: str | None = None,
    inputs: Iterable[str] = (),
    start: Sequence[bytes] = (),
    count: int = COUNT,
    seed: int = 0,
) -> WorstCase:
    """Return the dearest input that is found, each from the state as it is now.

    Raises as `check_invariants` does.
    """
    limit(count, None, seed)
    with (
        one_subject(obj, program, inputs) as subject,
        closing(_Meter(subject)) as meter,
        instruction_counter(subject) as exactly,
    ):
        shape = subject.shape
        waiting = seeds(shape, start)
        best = _climb(subject, meter, waiting, count, Random(seed))  # noqa: S311
        cost = meter.measure if exactly is None else lambda one: exactly([one])
        most, data = max(((cost(one), one) for one in best), key=lambda pair: pair[0])
        (data,) = shrink([data], lambda one: cost(one[0]) >= most, shape)
        way = tuple(path(subject, [data]))
        insns = meter.measure(data)
        instructions = None if exactly is None else exactly([data])
    return WorstCase(insns, instructions, shape.rest(data), shape.show(data), way, count)


class _Meter:
    """Counts the instructions of a run from the first state."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._twin = subject.twin("count")
        self._run = subject.runner_of(self._twin)
        self._set_name = name_setter(subject.shape)
        program = self._twin.build.flow
        ends = [*program.blocks[1:], len(program.instructions)]
        sizes = [
            sum(at not in program.second for at in range(start, end))
            for start, end in zip(program.blocks, ends, strict=True)
        ]
        self._sizes = np.array(sizes, dtype=np.uint64)

    def measure(self, data: bytes) -> int:
        """Return the instructions of one run, -1 when the kernel refuses it."""
        self._subject.reset()
        self._twin.clear()
        if self._set_name is not None:
            self._set_name(data)
        if self._run(data) is REFUSED:
            return -1
        counts = np.frombuffer(self._twin.counters, dtype=np.uint64, count=len(self._sizes))
        return int(counts @ self._sizes)

    def close(self) -> None:
        """Unload the build that counts."""
        self._twin.close()


def _climb(
    subject: Subject, meter: _Meter, waiting: list[bytes], count: int, random: Random
) -> list[bytes]:
    """Return the dearest inputs by BPF instructions, the dearest and shortest first."""
    shape = subject.shape
    mutate = mutator(random, shape, words_of([subject]))
    best: dict[bytes, int] = {}
    levels: set[int] = set()
    for turn in range(count):
        if waiting and (turn & 1 or not best):
            data = waiting.pop()
        else:
            known = sorted(best, key=best.__getitem__, reverse=True)
            data = mutate(known[:FEW] if turn & 2 else known)
        insns = meter.measure(data)
        if insns in levels and best:
            continue
        levels.add(insns)
        best[data] = insns
        subject.reset()
        subject.run_for_operands(data)
        twin = subject.operands
        waiting += hints(twin.build, twin.operands(), data, shape)
        if len(best) > BEST:
            del best[min(best, key=best.__getitem__)]
    return sorted(best, key=lambda one: (-best[one], len(one)))

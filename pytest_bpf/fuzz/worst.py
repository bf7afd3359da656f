"""The dearest input: the one for which a program runs the most instructions."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from pytest_bpf.errors import ValueTypeError
from pytest_bpf.fuzz.exact import instruction_counter, require_count
from pytest_bpf.fuzz.inputs import seeds
from pytest_bpf.fuzz.meter import Meter
from pytest_bpf.fuzz.mutation import hints, mutator
from pytest_bpf.fuzz.paths import path
from pytest_bpf.fuzz.place import one_subject
from pytest_bpf.fuzz.search import limit, words_of
from pytest_bpf.fuzz.sequences import Sequences, rise, show
from pytest_bpf.fuzz.shrink import shrink

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
    expensive one. ``earlier`` are the packets that come before, and leave the state for which it is
    so dear; ``rise`` is how many more instructions it takes when it comes again, where sequences
    were not asked for.
    """

    insns: int
    exactly: float | None
    data: bytes
    text: str
    way: tuple[str, ...]
    inputs: int
    earlier: tuple[bytes, ...] = ()
    rise: int = 0

    @property
    def instructions(self) -> float:
        """The machine's instructions; raises `NotMeasuredError` outside of exact mode."""
        return require_count(self.exactly)

    def __str__(self) -> str:
        exactly = "" if self.exactly is None else f", {self.exactly:.0f} of the machine,"
        behind = f" behind {len(self.earlier)} other inputs," if self.earlier else ""
        text = f"{self.insns} instructions{exactly}{behind} for\n{self.text}"
        if self.rise:
            text += (
                f"\nit takes {self.rise} BPF instructions more when it comes again: costs build "
                "up in what the program keeps; earlier= says how many inputs may come before"
            )
        return text


def find_worst(
    obj: Object,
    *,
    program: str | None = None,
    inputs: Iterable[str] = (),
    start: Sequence[bytes] = (),
    earlier: int = 0,
    count: int = COUNT,
    seed: int = 0,
) -> WorstCase:
    """Return the dearest input that is found, from the state as it is now.

    At most ``earlier`` inputs come before it, each of which leaves its state to the next one; for
    them ``count`` inputs more are tried. Raises as `check_invariants` does.
    """
    limit(count, None, seed)
    if not (type(earlier) is int and earlier >= 0):
        raise ValueTypeError(f"earlier is {earlier!r}; it is how many inputs may come before one")
    with (
        one_subject(obj, program, inputs) as subject,
        closing(Meter(subject)) as meter,
        instruction_counter(subject) as exactly,
    ):
        shape, random = subject.shape, Random(seed)  # noqa: S311
        waiting = seeds(shape, start)
        single = _climb(subject, meter, waiting, count, random)
        best = [[data] for data in single]
        if earlier:
            search = Sequences(subject, meter, single, earlier, random)
            search.search(count)
            count += search.tried
            best += search.dearest

        def cost(some: Sequence[bytes]) -> float:
            return meter.measure(some) if exactly is None else exactly(some[-1:], some[:-1])

        most, sequence = max(((cost(one), one) for one in best), key=lambda pair: pair[0])
        sequence = shrink(sequence, lambda some: cost(some) >= most, shape)
        *before, data = sequence
        insns = meter.measure(sequence)
        instructions = None if exactly is None else cost(sequence)
        return WorstCase(
            insns,
            instructions,
            shape.rest(data),
            show(shape, sequence),
            tuple(path(subject, sequence)),
            count,
            tuple(map(shape.rest, before)),
            0 if earlier else max(0, rise(meter, data)),
        )


def _climb(
    subject: Subject, meter: Meter, waiting: list[bytes], count: int, random: Random
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
        insns = meter.measure([data])
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

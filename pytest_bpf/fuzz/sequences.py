"""Costs that build up: sequences of inputs over the state that each leaves to the next one.

A counter bounds a loop, a list in a map grows, a table fills: an input costs more behind others.
These others are one input again and again; or the same with a number in it that goes up, wherever
it goes the same way with that: so each has another key.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from pytest_bpf.fuzz.mutation import mutator
from pytest_bpf.fuzz.search import words_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from pytest_bpf.fuzz.inputs import Form
    from pytest_bpf.fuzz.meter import Meter
    from pytest_bpf.fuzz.subject import Subject

DEAREST = 8
"""How many sequences are kept, the dearest ones."""

PLACES = 256
"""Of how many bytes of an input it is found out whether they may change."""

LAST = 2
"""How many inputs are tried again as the last one, right behind a sequence."""

SHOWN = 4
"""How many inputs of a sequence are shown, of its first and of its last ones."""

AGAIN = 8
"""How often an input comes again to see whether that makes it dearer."""


def rise(meter: Meter, data: bytes) -> int:
    """Return how many more instructions an input takes behind itself, at most."""
    first = meter.measure([data])
    return max(meter.step(data) for _ in range(AGAIN)) - first


class Sequences:
    """Looks for inputs that are dear behind at most ``earlier`` others; `dearest` has them.

    ``single`` are the inputs that sequences are made of, the dearest first.
    """

    def __init__(
        self, subject: Subject, meter: Meter, single: Sequence[bytes], earlier: int, random: Random
    ) -> None:
        self._subject, self._meter = subject, meter
        self._single, self._earlier, self._random = single, earlier, random
        self._mutate = mutator(random, subject.shape, words_of([subject]))
        self._kept: list[tuple[int, list[bytes]]] = []
        self.tried = 0

    @property
    def dearest(self) -> list[list[bytes]]:
        """The sequences whose last input is dearest, these first."""
        return [sequence for _, sequence in self._kept]

    def search(self, count: int) -> None:
        """Try about so many inputs, each behind others."""
        numbered: dict[bytes, list[bytes]] = {}
        for data in self._single:
            if self.tried < count:
                self._try([data] * self._earlier)
                numbered[data] = self._numbered(data)
                self._try(numbered[data])
        while self.tried < count:
            draw = self._random.choice
            begun, data = draw(self.dearest), draw(list(numbered))
            changed = [self._mutate([data]) for _ in range(self._earlier)]
            others = draw([[data] * self._earlier, numbered[data], changed])
            begun = begun[: self._random.randrange(len(begun) + 1)]
            self._try([*begun, *others][: self._earlier])

    def _numbered(self, data: bytes) -> list[bytes]:
        """Return an input with its number in each byte that may change without another cost."""
        least, free = self._meter.measure([data]), []
        for at in range(min(len(data), PLACES)):
            changed = bytearray(data)
            changed[at] ^= 0x55
            if self._meter.measure([bytes(changed)]) == least:
                free.append(at)
        self.tried += min(len(data), PLACES)
        result = []
        for number in range(self._earlier):
            changed = bytearray(data)
            for at in free:
                changed[at] = (number + at * (number >> 8)) & 0xFF
            result.append(self._subject.shape.fit(changed))
        return result

    def _try(self, others: list[bytes]) -> None:
        """Look at the cost of each of others, and of each single input behind all of them."""
        step = self._meter.step
        self._subject.reset()
        for at, data in enumerate(others, 1):
            self._keep(step(data), others[:at])
        ends = sorted(self._single, key=step, reverse=True)  # behind each other, too
        for data in ends[:LAST]:
            sequence = [*others, data]
            self._keep(self._meter.measure(sequence), sequence)
        self.tried += len(others) + len(ends) + LAST * (len(others) + 1)

    def _keep(self, insns: int, sequence: list[bytes]) -> None:
        kept = self._kept
        if len(kept) < DEAREST or insns > kept[-1][0]:
            kept[:] = [one for one in kept if one[0] != insns or len(one[1]) <= len(sequence)]
            if all(one[0] != insns for one in kept):
                kept.append((insns, sequence))
            kept.sort(key=lambda one: -one[0])
            del kept[DEAREST:]


def show(shape: Form, sequence: Sequence[bytes]) -> str:
    """Return inputs as text: equal ones behind each other once, of many the first and the last."""
    if len(sequence) == 1:
        return shape.show(sequence[0])
    parts, at = [], 0
    for data, same in groupby(sequence):
        first, at = at + 1, at + len(list(same))
        parts.append((first, at, data))
    hidden = parts[SHOWN:-SHOWN]
    lines = []
    for part in parts:
        first, at, data = part
        if part not in hidden:
            which = f"input {first}" if first == at else f"inputs {first} to {at}"
            lines.append(f"{which} of {len(sequence)}:")
            lines += [f"  {line}" for line in shape.show(data).splitlines()]
        elif part is hidden[-1]:
            lines.append(f"... {at - hidden[0][0] + 1} inputs more")
    return "\n".join(lines)

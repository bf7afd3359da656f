"""The path of a test as a value that grows: its steps, and what each of them changed."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from pytest_bpf.budgets.outcomes import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_bpf.plugin.artifacts.observing import Observer, Told

MOST_STEPS = 500
"""Steps that are kept of a test; of further ones the number."""

MOST_PRINTED = 10
"""Lines of printk of one step that are kept."""

BETWEEN = "between the steps"
"""What a change is said to come from that no step of ours made."""


class Path:
    """The steps of one test so far; ``observer`` says what each of them changed."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._start = time.monotonic()
        self._steps: list[Step] = []
        self._left_out = 0

    def before(self) -> float:
        """Note what has changed since the last step; return the moment at which one begins."""
        if self._full():
            return time.monotonic()
        now = time.monotonic()
        changes = self._observer.changes()
        if changes:
            self._add(now, now, "between", BETWEEN)
            self._add_changes(now, changes)
        return time.monotonic()

    def add(self, start: float, kind: str, text: str) -> None:
        """Note a step that is done, and what it changed."""
        if self._full():
            self._left_out += 1
            return
        now = time.monotonic()
        self._add(start, now, kind, text)
        self._add_changes(now, self._observer.changes(kind))

    def steps(self, printed: Iterable[tuple[float, str]] = ()) -> tuple[Step, ...]:
        """Return the steps, with each line that programs printed, in order.

        The last one says what is still attached: that is detached with the fixtures.
        """
        steps = list(self._steps)
        now = self._moment(time.monotonic())
        changes = self._observer.changes()
        if changes and not self._left_out:
            steps.append(Step(now, now, "between", BETWEEN))
            steps += [Step(now, now, kind, text, 1) for kind, text in changes]
        steps = _with_printed(steps, [(self._moment(moment), text) for moment, text in printed])
        if self._left_out:
            steps.append(Step(now, now, "more", f"... and {self._left_out} more steps"))
        attached = self._observer.attached()
        if attached:
            text = f"end of the test, which detaches {', '.join(attached)}"
            steps.append(Step(now, now, "detach", text))
        steps += [Step(now, now, "note", f"note: {note}") for note in self.told().notes if steps]
        return tuple(steps)

    def told(self) -> Told:
        """Return what was counted until now."""
        return self._observer.told()

    def close(self) -> None:
        """Observe nothing any more."""
        self._observer.close()

    def _full(self) -> bool:
        return len(self._steps) >= MOST_STEPS

    def _moment(self, moment: float) -> float:
        return round((moment - self._start) * 1000, 3)

    def _add(self, start: float, end: float, kind: str, text: str, depth: int = 0) -> None:
        self._steps.append(Step(self._moment(start), self._moment(end), kind, text, depth))

    def _add_changes(self, moment: float, changes: Iterable[tuple[str, str]]) -> None:
        for kind, text in changes:
            self._add(moment, moment, kind, text, 1)


def _with_printed(steps: Sequence[Step], printed: Sequence[tuple[float, str]]) -> list[Step]:
    """Return the steps with what was printed in each; of many lines in one step the last ones."""
    ends = [step.end for step in steps]
    by_step: dict[int, list[Step]] = {}
    for moment, text in printed:
        place = bisect_left(ends, moment)
        own = place < len(steps) and steps[place].start <= moment and steps[place].depth == 0
        line = Step(moment, moment, "printk", f"printk: {text}", 1)
        by_step.setdefault(place + own, []).append(line)
    whole: list[Step] = []
    for place in range(len(steps) + 1):
        lines = by_step.get(place, [])
        if len(lines) > MOST_PRINTED:
            left_out = f"... {len(lines) - MOST_PRINTED} lines of printk, then"
            whole.append(replace(lines[0], text=left_out))
        whole += [*lines[-MOST_PRINTED:], *steps[place : place + 1]]
    return whole


def path_lines(steps: Sequence[Step]) -> list[str]:
    """Return a line for each step; steps alike that follow each other are one line.

    >>> path_lines([Step(0, 1.5, "load", "load"), Step(2, 2, "run", "ran once", 1)])
    ['     1.5 ms  load', '     2.0 ms      ran once']
    """
    rows = []
    for (text, depth), group in groupby(steps, key=lambda step: (step.text, step.depth)):
        alike = list(group)
        again = f" ({len(alike)} times)" if len(alike) > 1 else ""
        rows.append(f"{alike[0].end:8.1f} ms  {'    ' * depth}{text}{again}")
    return rows

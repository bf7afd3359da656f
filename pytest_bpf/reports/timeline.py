"""The path of a test on one time line, as numbers that a template draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.budgets.outcomes import Step

LANES = {
    "load": "load",
    "attach": "attach",
    "stimulus": "stimulus",
    "test_run": "test_run",
    "run": "runs",
    "lines": "runs",
    "map": "maps",
    "events": "events",
    "printk": "printk",
    "drops": "drops",
    "raised": "errors",
    "detach": "detach",
}
"""The lane of each kind of step, from top to bottom."""

LEFT, WIDTH, ROW = 90, 900, 18
"""Where lanes begin, how wide they are, and how high each is."""

NARROWEST = 4
"""The width of a step that took no time, so that it can be seen."""


@dataclass(frozen=True)
class Mark:
    """One step: where it begins, how wide it is, and what it was."""

    x: float
    width: float
    text: str


@dataclass(frozen=True)
class Lane:
    """The steps of one kind, at ``y``."""

    name: str
    y: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Timeline:
    """All lanes that have steps, and the ticks of the axis below: where, and what is written."""

    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, str], ...]
    height: int
    label: str


def timeline(steps: Sequence[Step]) -> Timeline | None:
    """Return the time line of a path; None where it has no steps.

    >>> timeline([]) is None
    True
    """
    if not steps:
        return None
    begin, end = steps[0].start, max(step.end for step in steps)
    scale = WIDTH / max(end - begin, 0.001)
    by_lane: dict[str, list[Mark]] = {}
    for step in steps:
        if step.kind in LANES:
            x = LEFT + (step.start - begin) * scale
            width = max(NARROWEST, (step.end - step.start) * scale)
            mark = Mark(round(min(x, LEFT + WIDTH - NARROWEST), 1), round(width, 1), step.text)
            by_lane.setdefault(LANES[step.kind], []).append(mark)
    names = [name for name in dict.fromkeys(LANES.values()) if name in by_lane]
    lanes = tuple(Lane(name, n * ROW, tuple(by_lane[name])) for n, name in enumerate(names))
    ticks = tuple(
        (round(LEFT + WIDTH * part / 4, 1), f"{begin + (end - begin) * part / 4:.0f} ms")
        for part in range(5)
    )
    count = sum(step.depth == 0 for step in steps)
    label = f"time line of {count} steps in {end - begin:.0f} ms; the list below has the same"
    return Timeline(lanes, ticks, len(lanes) * ROW + 24, label)

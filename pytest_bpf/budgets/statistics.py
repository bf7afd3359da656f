"""Whether the batches of one run are slower than those of another, by more than there is room for.

Three things make two runs of the same program differ, and each is dealt with:

* batches differ: their medians are compared, and how sure these are is found by drawing the
  batches again, in stretches (`pytest_bpf.costs.intervals`);
* the machine is slower today: where a fixed program was measured beside each batch, each batch is
  taken in proportion to that;
* a program that is loaded anew lies elsewhere in memory, and so do its maps: that makes a percent
  or more, which no number of batches in one run can show. Such a `DRIFT` is assumed in each run.

A verdict other than "inconclusive" needs the whole 95 % interval on one side of the room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_bpf.costs.intervals import CONFIDENCE, SEED, medians

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.costs.intervals import Floats

Outcome = Literal["slower", "same", "faster", "inconclusive"]

DRIFT = 0.015
"""Standard deviation of a run time from one run to another, as a share of it; `rates` measures."""


FEWEST = 8
"""Batches without which a median of times is anybody's guess."""


@dataclass(frozen=True)
class Samples:
    """The batches of one run, and, in the same order, what the fixed program read beside each.

    Both in one unit, the order that of time. ``reference`` may be empty; it then is in both.
    """

    values: Sequence[float]
    reference: Sequence[float] = ()


@dataclass(frozen=True)
class Change:
    """How much ``after`` is above ``before``, and between what that lies with 95 % confidence.

    In the unit of ``before``, at the machine's speed then.
    """

    verdict: Outcome
    value: float
    lower: float
    upper: float


def change(before: Samples, after: Samples, room: float, *, drift: float = DRIFT) -> Change:
    """Say whether ``after`` is slower than ``before`` by more than ``room``, in the samples' unit.

    ``drift`` is the standard deviation between runs, as a share of what is measured; 0 where
    nothing of the kind exists, as in exact mode. "same" is not more than ``room`` above, and not
    clearly that far below, which is "faster". With less than `FEWEST` samples on a side nothing is
    certain that is left to chance.
    """
    import numpy as np  # noqa: PLC0415 (it takes 90 ms, and most sessions compare nothing)

    speed = float(np.median(before.reference)) if len(before.reference) else 1.0
    old, new = (_at_speed(side, speed) for side in (before, after))
    value = float(np.median(new) - np.median(old))
    drawn: Floats = medians(new, SEED + 1) - medians(old, SEED)
    if drift:
        spread = drift * float(np.hypot(np.median(old), np.median(new)))
        drawn = drawn + np.random.default_rng(SEED).normal(0.0, spread, len(drawn))
    outside = (1 - CONFIDENCE) / 2
    lower, upper = (float(bound) for bound in np.quantile(drawn, (outside, 1 - outside)))
    guessed = drift and min(len(old), len(new)) < FEWEST
    return Change("inconclusive" if guessed else _verdict(lower, upper, room), value, lower, upper)


def _at_speed(of: Samples, speed: float) -> Floats:
    """Return the samples as they were on a machine on which the fixed program reads ``speed``."""
    import numpy as np  # noqa: PLC0415

    values = np.asarray(of.values, dtype=float)
    if not len(of.reference):
        return values
    at_speed: Floats = values * speed / np.asarray(of.reference, dtype=float)
    return at_speed


def _verdict(lower: float, upper: float, room: float) -> Outcome:
    if lower > room:
        return "slower"
    if upper > room:
        return "inconclusive"
    return "faster" if upper < -room and upper < 0 else "same"

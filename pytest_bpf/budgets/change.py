"""Whether the batches of one run are slower than those of another, by more than there is room for.

Three things make two runs of the same program differ, and each is dealt with:

* the machine was disturbed: a fixed program that was measured beside each batch tells when, and
  these batches do not count. Where too few are left nothing is decided; so it is on a machine that
  is slower than the one before;
* the batches that are left differ: their lower deciles are compared (an interrupt only ever adds),
  and how sure these are is found by drawing the batches again (`costs.figures.intervals`);
* a program that is loaded anew lies elsewhere in memory, and so do its maps: that makes about a
  percent, which no number of batches in one run can show. Such a `DRIFT` is assumed in each run.

A verdict other than "inconclusive" needs the whole 95 % interval on one side of the room.

One load in thirty has bad luck with its memory for all of its life, and costs a tenth or more. So
"slower" is to be confirmed by loading and measuring again (`combine`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_bpf.costs.figures.intervals import (
    FEWEST,
    LOW,
    MEDIAN,
    NEAR,
    OUTSIDE,
    SEED,
    bootstrap,
    floor,
    quiet_samples,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.costs.figures.intervals import Floats

Outcome = Literal["slower", "same", "faster", "inconclusive"]

DRIFT = 0.01
"""Standard deviation of a run time from one run to another, as a share of it; `rates` measures."""


CONFIRMATIONS, ATTEMPTS = 2, 4
"""How many loads must say "slower", and after how many it is left undecided."""


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

    In the samples' unit. ``why`` says why a verdict is "inconclusive" whatever the interval is.
    """

    verdict: Outcome
    value: float
    lower: float
    upper: float
    why: str = ""


def change(before: Samples, after: Samples, room: float, *, drift: float = DRIFT) -> Change:
    """Say whether ``after`` is slower than ``before`` by more than ``room``, in the samples' unit.

    ``drift`` is the standard deviation between runs, as a share of what is measured; 0 where the
    figure is exact, as in exact mode. "same" is not more than ``room`` above, and not clearly that
    far below, which is "faster". Each side needs one sample at least.
    """
    import numpy as np  # noqa: PLC0415 (it takes 90 ms, and most sessions compare nothing)

    old, new, why = _counting(before, after)
    share = LOW if len(before.reference) and len(after.reference) else MEDIAN
    if drift and min(len(old), len(new)) < FEWEST:
        why = why or f"it takes {FEWEST} batches, there are {len(old)} before and {len(new)} now"
    if why:
        old, new = list(before.values), list(after.values)
    was, now = (float(np.quantile(side, share)) for side in (old, new))
    more: Floats = bootstrap(new, share, SEED + 1) - bootstrap(old, share, SEED)
    if drift:
        more = more + np.random.default_rng(SEED).normal(0.0, drift * np.hypot(was, now), len(more))
    lower, upper = (float(bound) for bound in np.quantile(more, OUTSIDE))
    verdict: Outcome = "inconclusive" if why else _verdict(lower, upper, room)
    return Change(verdict, now - was, lower, upper, why)


def is_too_disturbed(run: Samples) -> bool:
    """Say whether a run has too few undisturbed batches for anything to be held against it."""
    reference = run.reference
    return len(reference) >= FEWEST > len(quiet_samples(run.values, reference, floor(reference)))


def combine(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return one outcome for several loads of the same program, None while another is needed.

    The first load that is not slower decides. "slower" needs `CONFIRMATIONS` loads. After
    `ATTEMPTS` loads without a decision the outcome is "inconclusive".
    """
    passing = [each for each in outcomes if each in {"same", "faster"}]
    if passing:
        return passing[0]
    if outcomes.count("slower") >= CONFIRMATIONS:
        return "slower"
    return None if len(outcomes) < ATTEMPTS else "inconclusive"


def _counting(before: Samples, after: Samples) -> tuple[list[float], list[float], str]:
    """Return the undisturbed samples of both, or why there are not enough of them."""
    if not len(before.reference) or not len(after.reference):
        return list(before.values), list(after.values), ""
    least = min(floor(before.reference), floor(after.reference))
    old = quiet_samples(before.values, before.reference, least)
    new = quiet_samples(after.values, after.reference, least)
    for side, quiet, when in ((before, old, "before"), (after, new, "now")):
        if len(quiet) < FEWEST <= len(side.values):
            slower = floor(side.reference) / least - 1
            why = (
                f"the machine was {slower:.0%} slower {when}"
                if slower > NEAR - 1
                else f"the machine was disturbed {when}"
            )
            return old, new, f"{why}: {len(quiet)} of {len(side.values)} batches count"
    return old, new, ""


def _verdict(lower: float, upper: float, room: float) -> Outcome:
    if lower > room:
        return "slower"
    if upper > room:
        return "inconclusive"
    return "faster" if upper < -room and upper < 0 else "same"

"""What stands for a series of batches, and how sure it is: from the batches, drawn again.

A machine that others use is slow for a while, then fast for a while, so neighbouring batches
resemble each other. Whole stretches of them are drawn, not single ones (the moving-block
bootstrap), and the interval gets as wide as that makes it. The seed is fixed: the same batches
give the same interval.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from pytest_bpf.costs.figures.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pytest_bpf.costs.figures.figure import Instrument

    Floats = np.ndarray[Any, np.dtype[np.float64]]

DRAWS = 2000
SEED = 1
CONFIDENCE = 0.95

FEWEST = 8
"""Batches without which a median of times is anybody's guess."""

NEAR, LEAST = 1.05, 0.05
"""What a batch may read of the fixed program, and the quantile that is the least it reads."""

MEDIAN, LOW = 0.5, 0.1
"""The quantiles that stand for a series: of times whose disturbances are known, the lower decile.

Interrupts only ever add, and may hit half of the batches when these are long.
"""

OUTSIDE = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def resample(count: int, seed: int = SEED) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return `DRAWS` rows of ``count`` places in a series of that length, stretch by stretch."""
    import numpy as np  # noqa: PLC0415 (it takes 90 ms, and only who measures needs it)

    length = max(1, round(count ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, count, (DRAWS, math.ceil(count / length)))
    places = (starts[:, :, None] + np.arange(length)) % count
    return places.reshape(DRAWS, -1)[:, :count]


def bootstrap(samples: Sequence[float], share: float, seed: int = SEED) -> Floats:
    """Return the quantile ``share`` (0.5: the median) of `DRAWS` series drawn from ``samples``."""
    import numpy as np  # noqa: PLC0415

    rows = np.sort(np.asarray(samples, dtype=float)[resample(len(samples), seed)], axis=1)
    below, part = divmod(share * (len(samples) - 1), 1)
    above = min(int(below) + 1, len(samples) - 1)
    quantiles: Floats = rows[:, int(below)] * (1 - part) + rows[:, above] * part
    return quantiles


def interval(samples: Sequence[float], share: float = MEDIAN) -> tuple[float, float, float]:
    """Return a quantile of at least one sample, and where it lies with 95 % confidence."""
    import numpy as np  # noqa: PLC0415

    lower, upper = np.quantile(bootstrap(samples, share), OUTSIDE)
    return float(np.quantile(samples, share)), float(lower), float(upper)


def floor(reference: Sequence[float]) -> float:
    """Return what the fixed program reads when nothing disturbs it, as far as a run has seen it."""
    import numpy as np  # noqa: PLC0415

    return float(np.quantile(reference, LEAST))


def quiet_samples(
    samples: Sequence[float], reference: Sequence[float], least: float
) -> list[float]:
    """Return the samples beside which the fixed program read hardly more than ``least``."""
    return [
        sample
        for sample, reading in zip(samples, reference, strict=True)
        if reading <= NEAR * least
    ]


def mean_interval(samples: Sequence[float], seed: int = SEED) -> tuple[float, float, float]:
    """Return the mean of at least one sample, and between what it lies, in the same way."""
    import numpy as np  # noqa: PLC0415

    outside = (1 - CONFIDENCE) / 2
    values = np.asarray(samples, dtype=float)
    means = values[resample(len(values), seed)].mean(axis=1)
    lower, upper = np.quantile(means, (outside, 1 - outside))
    return float(values.mean()), float(lower), float(upper)


def figure_of(
    metric: str,
    subject: str,
    samples: Sequence[float],
    instrument: Instrument,
    reference: Sequence[float] = (),
) -> Figure:
    """Return the figure that at least one sample make; one alone has no interval.

    Its value is their median; with a ``reference`` the lower decile of the undisturbed ones, or of
    all when these are too few.
    """
    quiet = quiet_samples(samples, reference, floor(reference)) if reference else samples
    chosen_samples = quiet if len(quiet) >= FEWEST else samples
    if len(chosen_samples) == 1:
        value, lower, upper = chosen_samples[0], None, None
    else:
        value, lower, upper = interval(chosen_samples, LOW if reference else MEDIAN)
    return Figure(
        metric, subject, value, lower, upper, instrument, tuple(samples), tuple(reference)
    )


def rank_interval(samples: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return the median, and the samples between which it lies with ``confidence`` at least.

    Nothing is assumed of how they are distributed: half of all lies on each side of the median, so
    how many of ``n`` do is a binomial count. Too few of them leave it without bounds (infinite).
    """
    ordered, count = sorted(samples), len(samples)
    outside, rank = 0.0, 0
    while 2 * (outside := outside + math.comb(count, rank) / 2**count) <= 1 - confidence:
        rank += 1
    middle = statistics.median(ordered)
    if not rank:
        return middle, -math.inf, math.inf
    return middle, ordered[rank - 1], ordered[count - rank]

"""How sure a median is: from the batches themselves, drawn again.

A machine that others use is slow for a while, then fast for a while, so neighbouring batches
resemble each other. Whole stretches of them are drawn, not single ones (the moving-block
bootstrap), and the interval gets as wide as that makes it. The seed is fixed: the same batches
give the same interval.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from pytest_bpf.costs.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pytest_bpf.costs.figure import Instrument

    Floats = np.ndarray[Any, np.dtype[np.float64]]

DRAWS = 2000
SEED = 1
CONFIDENCE = 0.95


def drawn_again(count: int, seed: int = SEED) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return `DRAWS` rows of ``count`` places in a series of that length, stretch by stretch."""
    import numpy as np  # noqa: PLC0415 (it takes 90 ms, and only who measures needs it)

    length = max(1, round(count ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, count, (DRAWS, math.ceil(count / length)))
    places = (starts[:, :, None] + np.arange(length)) % count
    return places.reshape(DRAWS, -1)[:, :count]


def medians(samples: Sequence[float] | Floats, seed: int = SEED) -> Floats:
    """Return the medians of `DRAWS` series drawn again from ``samples``."""
    import numpy as np  # noqa: PLC0415

    values = np.asarray(samples, dtype=float)
    drawn: Floats = np.median(values[drawn_again(len(values), seed)], axis=1)
    return drawn


def median_interval(samples: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of at least one sample, and between what it lies with 95 % confidence."""
    import numpy as np  # noqa: PLC0415

    outside = (1 - CONFIDENCE) / 2
    lower, upper = np.quantile(medians(samples), (outside, 1 - outside))
    return float(np.median(samples)), float(lower), float(upper)


def mean_interval(samples: Sequence[float], seed: int = SEED) -> tuple[float, float, float]:
    """Return the mean of at least one sample, and between what it lies, in the same way."""
    import numpy as np  # noqa: PLC0415

    outside = (1 - CONFIDENCE) / 2
    values = np.asarray(samples, dtype=float)
    means = values[drawn_again(len(values), seed)].mean(axis=1)
    lower, upper = np.quantile(means, (outside, 1 - outside))
    return float(values.mean()), float(lower), float(upper)


def figure_of(
    metric: str,
    subject: str,
    samples: Sequence[float],
    instrument: Instrument,
    reference: Sequence[float] = (),
) -> Figure:
    """Return the figure that at least one sample make; one alone has no interval."""
    if len(samples) == 1:
        value, lower, upper = samples[0], None, None
    else:
        value, lower, upper = median_interval(samples)
    return Figure(
        metric, subject, value, lower, upper, instrument, tuple(samples), tuple(reference)
    )


def rank_interval(samples: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return the median, and the samples between which it lies with ``confidence`` at least.

    Nothing is assumed of how they are distributed: half of all lies on each side of the median, so
    how many of ``n`` do is a binomial count. With too few of them it is the least and the greatest.
    """
    ordered, count = sorted(samples), len(samples)
    outside, rank = 0.0, 0
    while True:
        outside += math.comb(count, rank) / 2**count
        if 2 * outside > 1 - confidence or rank + 1 > count // 2:
            break
        rank += 1
    rank = max(rank, 1)
    return statistics.median(ordered), ordered[rank - 1], ordered[count - rank]

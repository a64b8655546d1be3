"""How much a preference data set gains from its size: the first of the three metrics of Shen et al. 2024 (2409.09603).

The paper was not at hand; the formulas are those of our reading of it. A reward model is trained on nested subsets and
tested on the same held-out pairs each time. Letters: J sizes, P prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.quality.compare import interval_of, resampled
from heedful.evals.intervals import Interval

Array = NDArray[np.float64]

POINT = 0.01
"""Doublings that bring less than this, with an interval that includes 0, are too many."""


def sizes(total: int, points: int, least: int) -> list[int]:
    """Sizes of nested subsets, each half the next: at most `points` of them, none below `least` but the whole."""
    made = [total]
    while len(made) < points and made[-1] // 2 >= least:
        made.append(made[-1] // 2)
    return made[::-1]


def slope(numbers: Sequence[float], accuracy: Array) -> float:
    """b of accuracy = a + b log2 n by least squares; NaN for one size."""
    x = np.log2(np.asarray(numbers, float))
    x = x - x.mean()
    return float(x @ accuracy / (x @ x)) if len(x) > 1 else float("nan")


def needed(numbers: Sequence[float], accuracy: Array, target: float) -> float:
    """The size at which a curve, made monotone and interpolated over log2 n, reaches an accuracy.

    The smallest size where that is enough, and infinite where the whole is not.
    """
    rising = np.maximum.accumulate(accuracy)
    x = np.log2(np.asarray(numbers, float))
    if target <= rising[0]:
        return float(numbers[0])
    if target > rising[-1]:
        return math.inf
    j = int(np.searchsorted(rising, target))
    share = (target - rising[j - 1]) / (rising[j] - rising[j - 1])
    return float(np.clip(2 ** (x[j - 1] + share * (x[j] - x[j - 1])), numbers[j - 1], numbers[j]))


def scale(numbers: Sequence[int], right: Array, *, seed: int = 0) -> dict[str, Any]:
    """The curve and what it says, from (P, J) mean correctness of each test prompt at each size.

    accuracy: an Interval for each size. gain: one for each doubling, exact for sizes that double. slope: an Interval,
    accuracy gained per doubling over the whole curve. saturation: the first size from which every further doubling
    gains less than a point with an interval that includes 0, as one such step may be an accident of a small size; None
    where there is no such size.
    """
    draws = resampled(right, seed)
    columns = range(right.shape[1])
    accuracy = [interval_of(right, lambda m, j=j: m[j], draws=draws) for j in columns]
    gain = [interval_of(right, lambda m, j=j: m[j + 1] - m[j], draws=draws) for j in columns[:-1]]
    settled = 0
    for g in reversed(gain):
        if g.estimate >= POINT or g.excludes_zero:
            break
        settled += 1
    return {
        "n": list(numbers),
        "accuracy": accuracy,
        "gain": gain,
        "slope": interval_of(right, lambda m: slope(numbers, m), draws=draws),
        "saturation": numbers[-1 - settled] if settled else None,
    }


def effective_size(
    numbers: Sequence[int], right: Array, reference: Array, *, seed: int = 0
) -> tuple[float, Interval]:
    """How much of A is needed for what all of B gives, on a common evaluation: (n_eff, its interval).

    right: (P, J) of A at its sizes; reference: (P,) of B's whole on the same prompts. n_eff is infinite where the whole
    of A does not reach it, and the interval's upper end is infinite where that happens in a fortieth of the resamples.
    """
    table = np.column_stack([right, reference])
    draws = resampled(table, seed)
    found = np.array([needed(numbers, row[:-1], row[-1]) for row in draws])
    means = table.mean(0)
    estimate = needed(numbers, means[:-1], means[-1])
    # Quantiles by rank, because infinities cannot be interpolated.
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return estimate, Interval(estimate, float(low), float(high), len(table))

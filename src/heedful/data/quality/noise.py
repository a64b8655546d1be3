"""What a data set's labels survive: the second of the three metrics of Shen et al. 2024 (2409.09603).

Training labels are exchanged with probability q, the test stays as it is. Robust accuracy is not the same as good
labels: pairs that say the same thing many times over survive noise too.

Letters: P prompts, Q noise levels, N test pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.quality.compare import interval_of, resampled

Array = NDArray[np.float64]

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
BINS = 10
TOLERATED = 0.9
"""Excess retention from which a level of noise counts as tolerated."""
LEAST_EXCESS = 0.02
"""Accuracy above chance below which retention says nothing."""


def flips(count: int, level: float, seed: int) -> NDArray[np.bool_]:
    """Which of `count` training labels are exchanged: each with probability `level`; a higher level exchanges the same
    ones and more."""
    return np.random.default_rng([seed, 77]).random(count) < level


def right_of(margins: Array) -> Array:
    """1 where the chosen answer has the higher reward, .5 where both have the same, else 0."""
    return (margins > 0) + 0.5 * (margins == 0)


def confidence(margins: Array) -> Array:
    """The probability that the model gives to the answer it prefers, sigma(|r_chosen - r_rejected|)."""
    return 1 / (1 + np.exp(-np.abs(margins)))


def reliability(margins: Array) -> dict[str, Any]:
    """The reliability diagram over BINS equal bins of confidence from .5 to 1, and the expected calibration error.

    confidence, accuracy and pairs are lists with one entry for each bin that is not empty (Guo et al. 2017, section 2).
    """
    from sklearn.calibration import calibration_curve

    # Every pair twice, so that one without a preference is once right and once wrong. Its confidence of .5 belongs to
    # the first bin, not to one below.
    sure = np.maximum(np.tile(confidence(margins), 2), np.nextafter(0.5, 1))
    right = np.concatenate([margins > 0, margins >= 0])
    edges = np.linspace(0, 1, 2 * BINS + 1)
    accuracy, told = calibration_curve(right, sure, n_bins=2 * BINS)
    counts = np.bincount(np.searchsorted(edges[1:-1], sure), minlength=2 * BINS)
    counts = counts[counts > 0]
    error = float(np.abs(accuracy - told) @ counts / counts.sum())
    return {
        "confidence": told.tolist(),
        "accuracy": accuracy.tolist(),
        "pairs": (counts / 2).tolist(),
        "ece": error,
        "mean_confidence": float(sure.mean()),
    }


def retention(accuracy: Array) -> Array:
    """Excess retention (acc(q) - .5) / (acc(0) - .5) of (Q,) accuracies; NaN where acc(0) is hardly above chance."""
    excess = accuracy[0] - 0.5
    return (accuracy - 0.5) / excess if excess >= LEAST_EXCESS else np.full(len(accuracy), np.nan)


def tolerance(levels: Sequence[float], kept: Array) -> float:
    """q*: the largest level up to which every one has excess retention of at least TOLERATED; NaN where unknown."""
    if np.isnan(kept).any():
        return float("nan")
    good = np.cumprod(kept >= TOLERATED).astype(bool)
    return float(np.asarray(levels)[good].max()) if good.any() else 0.0


def area(levels: Sequence[float], accuracy: Array) -> float:
    """Mean accuracy over the levels, the area under acc(q) divided by the range of q."""
    return float(np.trapezoid(accuracy, levels) / (levels[-1] - levels[0]))


def noise(levels: Sequence[float], right: Array, *, seed: int = 0) -> dict[str, Any]:
    """What noise does, from (P, Q) mean correctness of each test prompt at each level: Intervals.

    accuracy, raw_retention and excess_retention have one for each level; tolerance and area have one.
    """
    draws = resampled(right, seed)
    columns = range(right.shape[1])

    def each(statistic: Any) -> list[Any]:
        return [interval_of(right, lambda m, j=j: float(statistic(m)[j]), draws=draws) for j in columns]

    return {
        "q": list(levels),
        "accuracy": each(lambda m: m),
        "raw_retention": each(lambda m: m / m[0] if m[0] > 0 else m * np.nan),
        "excess_retention": each(retention),
        "tolerance": interval_of(right, lambda m: tolerance(levels, retention(m)), draws=draws),
        "area": interval_of(right, lambda m: area(levels, m), draws=draws),
    }

"""Win rates against a baseline's answers, plain and with the lengths of the answers held equal.

Judges like long answers. The length-controlled win rate asks what the win rate would be if both answers were as long
as each other: a logistic regression of the wins on the difference of lengths, read off at difference 0. This is the
length term of Dubois et al. 2024 (arXiv 2404.04475, section 3); its term for the difficulty of an instruction is left
out, because it needs many models on the same instructions.

The prompt is the unit of resampling, as in `heedful.evals.intervals`.

Letters: B prompts, N answers per prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval, per_prompt, share

Array = NDArray[np.float64]

SLOPE_SD = 2.5
"""Prior of the slope, for differences scaled to tanh(difference / standard deviation): Gelman et al. 2008 for
logistic regression. Without one, a slope of few prompts is infinite as soon as the longer answer wins each time."""
LEVEL_SD = 10.0
"""Prior of the intercept, which keeps it finite when every answer wins and moves it by nothing else."""
STEPS = 60
CHUNK = 2_000_000


@dataclass(frozen=True)
class Judged:
    """Answers that an evaluator has compared with a baseline's.

    wins: (B, N), the probability that the answer is better than the baseline's; .5 a tie, NaN no opinion.
    longer: (B, N), length of the answer less that of the baseline's, in any unit.

    Raises HeedfulError for other shapes and for values that are no probabilities.
    """

    wins: Array
    longer: Array

    def __post_init__(self) -> None:
        if self.wins.ndim != 2 or self.wins.shape != self.longer.shape:
            raise HeedfulError(
                f"wins are {self.wins.shape} and lengths {self.longer.shape}; both are (prompts, answers per prompt)"
            )
        known = self.wins[~np.isnan(self.wins)]
        if ((known < 0) | (known > 1)).any() or not np.isfinite(self.longer).all():
            raise HeedfulError("wins must lie between 0 and 1, and lengths must be finite")


def win_share(judged: Judged, *, seed: int = 0) -> Interval:
    """The plain win rate, ties counted half, with its bootstrap interval over prompts.

    Raises HeedfulError when the evaluator had no opinion on any prompt.
    """
    return share(judged.wins, seed=seed)


def length_controlled(judged: Judged, *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """The win rate at equal lengths, with its percentile bootstrap interval over prompts.

    Where every answer wins, or every one loses, lengths explain nothing, and it is the plain win rate.
    Raises HeedfulError when the evaluator had no opinion on any prompt.
    """
    known = judged.wins[~np.isnan(judged.wins)]
    if known.size and known.min() == known.max() and known[0] in (0.0, 1.0):
        return share(judged.wins, level=level, seed=seed)
    estimate, draws, n, missing = _controlled(judged, samples, seed)
    return _interval(estimate, draws, n, missing, level)


def length_controlled_gap(
    a: Judged, b: Judged, *, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """How much higher the win rate at equal lengths of `b` is than that of `a`, over the prompts both have.

    Both are fitted on the same resampled prompts. Raises HeedfulError when they are of different prompts, or when no
    prompt has an opinion on both.
    """
    if len(a.wins) != len(b.wins):
        raise HeedfulError(f"{len(a.wins)} and {len(b.wins)} prompts are no pairs; give the same prompts")
    both: NDArray[np.bool_] = np.isfinite(per_prompt(a.wins) + per_prompt(b.wins))
    if not both.any():
        raise HeedfulError("no prompt has an opinion on both sides")
    left, right = (_controlled(Judged(side.wins[both], side.longer[both]), samples, seed) for side in (a, b))
    missing = len(both) - int(both.sum())
    return _interval(right[0] - left[0], right[1] - left[1], int(both.sum()), missing, level)


def _controlled(judged: Judged, samples: int, seed: int) -> tuple[float, Array, int, int]:
    """(estimate, (samples,) bootstrap draws, prompts used, prompts without an opinion)."""
    known = ~np.isnan(judged.wins)
    used = np.asarray(known.any(1))
    if not used.any():
        raise HeedfulError(f"the evaluator had no opinion on any of {used.size} prompts")
    known, wins, longer = known[used], judged.wins[used], judged.longer[used]
    n = len(wins)
    # the answers of one prompt share its weight
    weight = known / known.sum(1, keepdims=True)
    spread = float(longer[known].std())
    x = np.tanh(longer / spread) if spread > 0 else np.zeros_like(longer)
    wins = np.where(known, wins, 0.0)
    estimate = float(_fit(wins, x, weight[None])[0])
    rng = np.random.default_rng(seed)
    draws, rows = [], max(1, CHUNK // wins.size)
    for first in range(0, samples, rows):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(rows, samples - first))
        draws.append(_fit(wins, x, drawn[:, :, None] * weight[None]))
    return estimate, np.concatenate(draws), n, used.size - n


def _fit(wins: Array, x: Array, weight: Array) -> Array:
    """The logistic function of the intercept, (R,), for R weightings (R, B, N) of the answers, by Newton's method."""
    wins, x = wins.ravel(), x.ravel()
    weight = weight.reshape(len(weight), -1)
    level = np.zeros(len(weight))
    slope = np.zeros(len(weight))
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(level[:, None] + slope[:, None] * x)))
        error, curve = weight * (wins - p), weight * p * (1 - p)
        g0 = error.sum(1) - level / LEVEL_SD**2
        g1 = error @ x - slope / SLOPE_SD**2
        h00 = curve.sum(1) + 1 / LEVEL_SD**2
        h01 = curve @ x
        h11 = curve @ (x * x) + 1 / SLOPE_SD**2
        det = h00 * h11 - h01**2
        steps = np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0]) / det
        # a full step overshoots where nearly every answer wins
        steps /= np.maximum(1.0, np.abs(steps).max(0))
        level, slope = level + steps[0], slope + steps[1]
        if np.abs(steps).max() < 1e-9:
            break
    return 1 / (1 + np.exp(-level))


def _interval(estimate: float, draws: Array, n: int, missing: int, level: float) -> Interval:
    if n < 2:
        return Interval(estimate, float("nan"), float("nan"), n, missing)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), n, missing)

"""Intervals for before/after comparisons: bias-corrected and accelerated (BCa) bootstrap over prompts.

The prompt is the unit of resampling everywhere. Several samples of one prompt say the same thing several
times, so they are averaged first; resampling them singly would give intervals that are too narrow. NaN means
"no opinion": such prompts are left out and counted in `Interval.missing`, never filled in.

Source: B. Efron, "Better Bootstrap Confidence Intervals", JASA 82 (1987), sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

Array = NDArray[np.float64]
Statistic = Callable[..., Any]  # called as statistic(values, axis=-1), as numpy's mean and median are

_CHUNK = 2_000_000  # resampled values held in memory at once (16 MB)
_JACKKNIFE_LIMIT = 2000  # beyond this the acceleration of a statistic other than the mean is taken as zero


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; `low` and `high` are NaN when one prompt alone stands behind it."""

    estimate: float
    low: float
    high: float
    n: int = 0  # prompts used
    missing: int = 0  # prompts left out because one of their values was NaN

    @property
    def known(self) -> bool:
        """False when there were too few prompts for an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def excludes_zero(self) -> bool:
        """True when the whole interval lies on one side of zero."""
        return self.known and (self.low > 0 or self.high < 0)

    def bounds(self) -> list[float] | None:
        """[low, high] as report.json wants it, or None when unknown (JSON has no NaN)."""
        return [self.low, self.high] if self.known else None

    def shifted(self, by: float) -> Interval:
        """The same interval with `by` added to the estimate and both bounds."""
        return Interval(self.estimate + by, self.low + by, self.high + by, self.n, self.missing)


def per_prompt(values: Any, groups: Sequence[Hashable] | None = None, name: str = "values") -> Array:
    """One number per prompt, (B,), from (B,), (B, N), a ragged list of lists, or flat values with groups.

    With `groups`, values with equal labels belong to one prompt; prompts come in order of first appearance.
    NaN and None mean no opinion and are left out of a prompt's mean; a prompt without any opinion is NaN.
    Raises HeedfulError when a value is no number or infinite, or when the lengths differ.
    """
    rows = _rows(values, name)
    if groups is not None:
        flat = np.array([_mean(row) for row in rows])
        if len(groups) != len(flat):
            raise HeedfulError(
                f"{name} has {len(flat)} values but {len(groups)} group labels; one each is needed"
            )
        members: dict[Hashable, list[float]] = {}
        for label, value in zip(groups, flat):
            members.setdefault(label, []).append(float(value))
        rows = [np.array(member) for member in members.values()]
    return np.array([_mean(row) for row in rows], dtype=float)


def bootstrap(
    values: Any,
    *,
    statistic: Statistic = np.mean,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """BCa bootstrap interval of `statistic` over per-prompt values (see `per_prompt` for the shapes taken).

    One prompt gives the estimate with an unknown interval; constant values give an interval of width zero.
    The result is a pure function of the arguments. Raises HeedfulError when no prompt has a value.
    """
    return _bca(per_prompt(values, groups), statistic, samples, level, seed, "values")


def paired_bootstrap(
    before: Any,
    after: Any,
    *,
    statistic: Statistic = np.mean,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """BCa bootstrap interval of `statistic` of the per-prompt differences after - before.

    `before[i]` and `after[i]` belong to the same prompt, each a number or a list of samples (the numbers of
    samples may differ). A prompt counts only when both sides have a value. Raises HeedfulError when the
    numbers of prompts differ.
    """
    left, right = per_prompt(before, groups, "before"), per_prompt(after, groups, "after")
    _same_length(left, right)
    return _bca(right - left, statistic, samples, level, seed, "pairs")


def win_rate(
    before: Any, after: Any, *, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Share of prompts on which `after` scores higher, ties counted half; 0.5 means no difference.

    With several samples per prompt every sample of one side meets every sample of the other. When all prompts
    are won (or all lost) a bootstrap would claim certainty, so the exact binomial bound (Clopper and Pearson,
    1934) is used.
    """
    wins = _meet(before, after, lambda b, a: (a > b) + 0.5 * (a == b))
    return _exact_at_the_ends(_bca(wins, np.mean, samples, level, seed, "pairs of scores"), level)


def share(values: Any, *, samples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean of per-prompt values between 0 and 1, with the bootstrap interval, or the exact binomial bound where
    every prompt has 0 or every prompt has 1. Raises HeedfulError when no prompt has a value."""
    return _exact_at_the_ends(bootstrap(values, samples=samples, level=level, seed=seed), level)


def _exact_at_the_ends(interval: Interval, level: float) -> Interval:
    """Of n values that are all 0 (or all 1) a bootstrap would claim certainty: Clopper and Pearson, 1934."""
    if interval.known and interval.estimate in (0.0, 1.0):
        bound = ((1 - level) / 2) ** (1 / interval.n)
        low, high = (bound, 1.0) if interval.estimate == 1.0 else (0.0, 1.0 - bound)
        return Interval(interval.estimate, low, high, interval.n, interval.missing)
    return interval


def tie_rate(before: Any, after: Any | None = None) -> float:
    """Share of pairs with equal scores, averaged over prompts.

    With two arguments: a sample before against a sample after. With one, (B, N): pairs of samples of the same
    prompt, which is the share of pairs that a preference method has to drop. NaN when no pair has two scores.
    """
    if after is not None:
        ties = _meet(before, after, lambda b, a: (a == b).astype(float))
    else:
        ties = np.array([_ties_within(row) for row in _rows(before, "scores")], dtype=float)
    return _mean(ties)


def kl_to_start(
    logp_after: Any,
    logp_start: Any,
    *,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """KL(tuned || start) in nats per completion, from completions sampled from the TUNED model.

    Both arguments are summed log-probabilities of those completions (temperature 1), (B,) or (B, N). The mean
    of logp_after - logp_start is unbiased; it may be slightly negative for few samples (J. Schulman,
    "Approximating KL Divergence", 2020, estimator k1). Raises HeedfulError when the shapes differ.
    """
    rows_after, rows_start = _rows(logp_after, "logp_after"), _rows(logp_start, "logp_start")
    _same_length(rows_start, rows_after)
    for i, (a, s) in enumerate(zip(rows_after, rows_start)):
        if a.shape != s.shape:
            raise HeedfulError(f"logp_after[{i}] has {a.size} completions but logp_start[{i}] has {s.size}")
    values = np.array([_mean(a - s) for a, s in zip(rows_after, rows_start)], dtype=float)
    return _bca(values, np.mean, samples, level, seed, "completions")


def _rows(values: Any, name: str) -> list[Array]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise HeedfulError(
            f"{name} must be a list of numbers or of lists of numbers, not {type(values).__name__}"
        )
    rows = []
    for i, value in enumerate(values):
        single = value is None or np.isscalar(value) or getattr(value, "ndim", None) == 0
        try:
            row = np.array([value] if single else list(cast(Iterable[Any], value)), dtype=float)
        except (TypeError, ValueError) as error:
            raise HeedfulError(f"{name}[{i}] is not a number or a list of numbers: {value!r:.60}") from error
        if row.ndim != 1:
            raise HeedfulError(
                f"{name}[{i}] is nested too deeply: one list of numbers per prompt is expected"
            )
        if np.isinf(row).any():
            raise HeedfulError(f"{name}[{i}] is infinite; use NaN where there is no opinion")
        rows.append(row)
    return rows


def _mean(row: Array) -> float:
    known = row[~np.isnan(row)]
    return float(known.mean()) if known.size else float("nan")


def _same_length(before: Sequence[Any] | Array, after: Sequence[Any] | Array) -> None:
    if len(before) != len(after):
        raise HeedfulError(
            f"before has {len(before)} prompts and after has {len(after)}; they must be the same prompts"
        )


def _meet(before: Any, after: Any, outcome: Callable[[Array, Array], Array]) -> Array:
    rows_before, rows_after = _rows(before, "before"), _rows(after, "after")
    _same_length(rows_before, rows_after)
    results = []
    for b, a in zip(rows_before, rows_after):
        b, a = b[~np.isnan(b)], a[~np.isnan(a)]
        results.append(float(outcome(b[:, None], a[None, :]).mean()) if b.size and a.size else float("nan"))
    return np.array(results, dtype=float)


def _ties_within(row: Array) -> float:
    row = row[~np.isnan(row)]
    if row.size < 2:
        return float("nan")
    i, j = np.triu_indices(row.size, 1)
    return float((row[i] == row[j]).mean())


def _bca(values: Array, statistic: Statistic, samples: int, level: float, seed: int, what: str) -> Interval:
    if not 0 < level < 1:
        raise HeedfulError(f"level must lie between 0 and 1, not {level}")
    if samples < 100:
        raise HeedfulError(f"samples must be at least 100 for an interval, not {samples}")
    missing = int(np.isnan(values).sum())
    values = values[~np.isnan(values)]
    n = values.size
    if n == 0:
        raise HeedfulError(
            f"no {what} to compare: {f'all {missing} are NaN' if missing else 'the list is empty'}"
        )
    estimate = float(statistic(values, axis=-1))
    if n == 1:
        return Interval(estimate, float("nan"), float("nan"), 1, missing)
    if np.ptp(values) == 0:
        return Interval(estimate, estimate, estimate, n, missing)
    draws = _resample(values, statistic, samples, seed)
    normal = NormalDist()
    # A tolerance, because the same mean summed in another order differs in its last bits.
    near = np.isclose(draws, estimate, rtol=1e-12, atol=1e-12 * float(np.abs(values).max()))
    below = float(((draws < estimate) & ~near).mean() + 0.5 * near.mean())
    bias = normal.inv_cdf(min(max(below, 0.5 / samples), 1 - 0.5 / samples))
    skew = _acceleration(values, statistic)
    tails = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(tail)
        tails.append(normal.cdf(bias + z / max(1 - skew * z, 1e-6)))
    low, high = np.quantile(draws, tails)
    return Interval(estimate, float(low), float(high), n, missing)


def _resample(values: Array, statistic: Statistic, samples: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // values.size)
    parts = [
        np.asarray(
            statistic(values[rng.integers(0, values.size, (min(rows, samples - at), values.size))], axis=-1)
        )
        for at in range(0, samples, rows)
    ]
    return np.concatenate(parts)


def _acceleration(values: Array, statistic: Statistic) -> float:
    n = values.size
    if statistic is np.mean:
        left_out = (values.sum() - values) / (n - 1)
    elif n <= _JACKKNIFE_LIMIT:
        left_out = np.array([float(statistic(np.delete(values, i), axis=-1)) for i in range(n)])
    else:
        return 0.0
    gaps = left_out.mean() - left_out
    spread = float((gaps**2).sum())
    return float((gaps**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

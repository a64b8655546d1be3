"""Intervals over prompts for whole curves at once, paired tests between files, and their correction for multiplicity.

Letters: P prompts, J points of a curve, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval

Array = NDArray[np.float64]

RESAMPLES = 1000
SETTLED = 0.9
"""Least share of the resamples in which a quantity must exist for it to have an interval."""


def by_prompt(values: Array, prompts: NDArray[Any]) -> Array:
    """Means over the rows of each prompt, (P, J) or (P,), prompts in the order of their keys; values (N, J) or (N,)."""
    _, member = np.unique(prompts, return_inverse=True)
    counts = np.bincount(member)
    table = values if values.ndim == 2 else values[:, None]
    sums = np.stack([np.bincount(member, weights=table[:, j]) for j in range(table.shape[1])], 1)
    means = sums / counts[:, None]
    return means if values.ndim == 2 else means[:, 0]


def resampled(table: Array, seed: int, samples: int = RESAMPLES) -> Array:
    """Means of the columns over resampled prompts, (R, J): the columns of a row stay together, so that whatever is made
    of several of them is paired. table: (P, J)."""
    rng = np.random.default_rng(seed)
    n = len(table)
    out = np.empty((samples, table.shape[1]))
    for r in range(samples):
        out[r] = np.bincount(rng.integers(0, n, n), minlength=n) @ table / n
    return out


def interval_of(
    table: Array, statistic: Callable[[Array], float], *, seed: int = 0, draws: Array | None = None
) -> Interval:
    """A statistic of the column means, with its percentile interval over prompts (Efron and Tibshirani 1993, ch. 13).

    statistic may give NaN where it does not exist; where that happens in more than a tenth of the resamples, or for one
    prompt alone, the interval is unknown. draws: those of `resampled`, where several statistics share them.
    """
    draws = resampled(table, seed) if draws is None else draws
    estimate = float(statistic(table.mean(0)))
    values = np.array([statistic(row) for row in draws], float)
    known = values[np.isfinite(values)]
    if len(table) < 2 or len(known) < SETTLED * len(values):
        return Interval(estimate, float("nan"), float("nan"), len(table))
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(estimate, float(low), float(high), len(table))


def mcnemar(first: NDArray[Any], second: NDArray[Any]) -> dict[str, float]:
    """The exact test of McNemar (1947) on which of two is right on the same rows; 1 right, 0 wrong, (N,) each.

    Rows on which both are right, both wrong, or one is undecided (.5) say nothing. Gives only_first, only_second and p,
    two-sided; p is 1 where no row tells. Raises HeedfulError when the lengths differ.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise HeedfulError(f"{len(first)} and {len(second)} verdicts; both must be on the same rows")
    only_first, only_second = (
        int(((first == 1) & (second == 0)).sum()),
        int(((first == 0) & (second == 1)).sum()),
    )
    total = only_first + only_second
    p = float(binomtest(only_first, total).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for all comparisons made together (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    corrected, most = [0.0] * len(p), 0.0
    for rank, i in enumerate(order.tolist()):
        most = max(most, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = most
    return corrected

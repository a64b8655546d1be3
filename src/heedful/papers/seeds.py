"""A result over several seeds: its mean and Student's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

from heedful.errors import HeedfulError

# 97.5% quantiles of Student's t for 1 to 10 degrees of freedom; the series below is off by less than 0.001 beyond.
_T = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814)


def over_seeds(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean and 95% interval (mean ± t sd / sqrt(n)) of one number per seed; one seed gives no interval.

    Raises `HeedfulError` when there are no values.
    """
    if not values:
        raise HeedfulError("no seeds, no result: at least one is needed")
    mean = fmean(values)
    if len(values) == 1:
        return mean, None
    half = student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def decided(
    measured: float, interval: tuple[float, float] | None, bound: float, above: bool = True
) -> bool | None:
    """Whether a measured number lies above (or below) a bound; None, undecided, where it does and its interval does
    not, or is not known, as with one seed."""
    sides = [measured, *(interval or (float("nan"),))]
    right = [(value >= bound) if above else (value <= bound) for value in sides]
    return all(right) or (None if right[0] else False)


def student_t(freedom: int) -> float:
    """The 97.5% quantile of Student's t (Abramowitz and Stegun 1964, 26.7.5, above 10 degrees of freedom)."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3

"""A result over several seeds or other units: its value, Student's interval, and what that decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any

from heedful.errors import HeedfulError
from heedful.papers.results import Claim, Tier

Result = dict[str, Any]
Done = dict[tuple[str, str, int], Result]
"""What a run found, by (setup, method, seed); one that went to pieces has `failed`."""
Get = Callable[[str, str], Result]
"""(setup, method) -> result, of one seed."""
NO_LEAD = 1e-9
"""A difference of exactly 0 is no lead."""

# 97.5% quantiles of Student's t for 1 to 10 degrees of freedom; the series below is off by less than 0.001 beyond.
_T = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814)


def setup_by_setup(
    setups: Mapping[str, Sequence[int]],
    run_arms: Callable[[str, int, float | None], Done],
    arms: Callable[[str, int], Iterable[str]],
    until: float | None,
) -> Iterator[tuple[str, Sequence[int], Done]]:
    """(setup, its seeds, what they found), one setup after the other, so that time which ends is spent on the first.

    setups: the seeds of each. run_arms(setup, seed, until): what `until` allows to be begun, and what was done earlier.
    arms(setup, seed): all there should be; the next setup begins once they are there, those that failed included.
    """
    before = True
    for setup, seeds in setups.items():
        done: Done = {}
        for seed in seeds:
            # -inf is over before it began: what was done at an earlier start is read, and nothing begun
            done |= run_arms(setup, seed, until if before else -math.inf)
        before = before and all((setup, arm, seed) in done for seed in seeds for arm in arms(setup, seed))
        yield setup, seeds, done


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


def over_splits(values: Sequence[float], train: int, test: int) -> tuple[float, tuple[float, float] | None]:
    """Mean and 95% interval of one number for each random split of the same data into `train` and `test` rows.

    The splits share rows, so their spread is too small a measure of how another sample would differ: the variance is
    sd^2 (1 / splits + test / train), the corrected resampled t-test of Nadeau and Bengio 2003, section 3. One split
    gives no interval. Raises `HeedfulError` when there are no values.
    """
    mean, interval = over_seeds(values)
    if interval is None:
        return mean, None
    half = (interval[1] - mean) * math.sqrt(1 + len(values) * test / train)
    return mean, (mean - half, mean + half)


def jackknife(
    value: Callable[[Sequence[str]], float], units: Sequence[str]
) -> tuple[float, tuple[float, float] | None]:
    """`value` of all units and its 95% interval over them, for a ratio or a maximum of means as for a mean.

    The jackknife (Tukey 1958): the spread of n value(all) - (n - 1) value(all but one), with Student's t. Fewer than
    three units, or a value that is undefined without one of them, give no interval.
    """
    whole, n = value(units), len(units)
    if n < 3:
        return whole, None
    left = [value([other for other in units if other != unit]) for unit in units]
    pseudo = [n * whole - (n - 1) * without for without in left]
    if not all(map(math.isfinite, pseudo)):
        return whole, None
    half = student_t(n - 1) * stdev(pseudo) / math.sqrt(n)
    return whole, (whole - half, whole + half)


def decided(
    measured: float, interval: tuple[float, float] | None, bound: float, above: bool = True
) -> bool | None:
    """Whether a measured number lies above (or below) a bound, and its whole interval with it; None, undecided, where
    the interval holds the bound or is not known, as with one seed."""
    if interval is None:
        return None
    right = [(value >= bound) if above else (value <= bound) for value in (measured, *interval)]
    return True if all(right) else None if any(right) else False


def near(measured: float, interval: tuple[float, float] | None, bound: float) -> bool | None:
    """Whether a number is at most a bound from 0, and its whole interval with it; None, undecided, where the interval
    crosses the bound or is not known."""
    if interval is None:
        return None
    low, high = interval
    inside = max(abs(low), abs(high)) <= bound
    return True if inside else False if low > bound or high < -bound else None


def bounded(
    text: str, paper: str, values: Sequence[float], bound: float, *, above: bool = True, note: str = ""
) -> Claim:
    """A claim that the mean of one number per seed lies above (or below) a bound; not run where there are none."""
    if not values:
        return Claim(text, paper, note="not run yet")
    measured, interval = over_seeds(values)
    count = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    told = "; ".join(part for part in (note, count) if part)
    return Claim(text, paper, measured, interval, decided(measured, interval, bound, above), told)


def claim(
    text: str,
    paper: str,
    value: Callable[[Get], float],
    done: Done,
    tier: Tier,
    seeds: Sequence[int],
    *,
    bound: float | None = None,
    above: bool = True,
    note: str = "",
) -> Claim:
    """A claim that a value is above (or below) a bound, 0 unless given, over the seeds that have all it asks for."""
    if tier == "smoke":
        return Claim(text, paper, note="not in the smoke tier, which stops after a few steps")
    values = [found for seed in seeds if (found := _of_seed(value, done, seed)) is not None]
    limit = bound if bound is not None else NO_LEAD if above else -NO_LEAD
    return bounded(text, paper, values, limit, above=above, note=note)


def _of_seed(value: Callable[[Get], float], done: Done, seed: int) -> float | None:
    missing: list[str] = []

    def get(setup: str, method: str) -> Result:
        result = done.get((setup, method, seed))
        if result is None or "failed" in result:
            missing.append(method)
            raise KeyError(setup, method, seed)
        return result

    try:
        found = value(get)
    except KeyError:
        if missing:
            return None
        raise
    return found if math.isfinite(found) else None


def student_t(freedom: int) -> float:
    """The 97.5% quantile of Student's t (Abramowitz and Stegun 1964, 26.7.5, above 10 degrees of freedom)."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3

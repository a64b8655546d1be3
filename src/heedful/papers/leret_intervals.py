"""Intervals over seeds and questions: a paired bootstrap in two levels.

Writers of a seed are measured on the same questions, so a resample draws questions, and takes all writers' values for
them. With several seeds, seeds are drawn first, each with questions of its own (Davison and Hinkley 1997, section 3.8).
Three seeds are few: the spread between them comes out too small, so `settled` also asks that they all agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from heedful.papers.seeds import Done, decided
from heedful.run import derive_seed

Array = np.ndarray
SAMPLES = 2000
LEAST_KNOWN = 0.95
"""A share of resamples without a value above the rest gives no interval."""


class Lacking(Exception):
    """A result that a value asks for is not there."""


class Means:
    """Means of one seed's results: the plain one first, then one for each resample of the questions."""

    def __init__(self, done: Done, setup: str, seed: int, samples: int = SAMPLES) -> None:
        self._done, self._setup, self._seed, self._samples = done, setup, seed, samples
        self._drawn: dict[int, Array] = {}

    def __call__(self, writer: str, name: str, hop: int | None = None) -> Array:
        """(1 + samples,) means of `name` for a writer; hop: which row of a table of hops, -1 the last.

        Values of equally many questions are drawn alike, so differences are paired. Raises Lacking where there is none.
        """
        result = self._done.get((self._setup, writer, self._seed))
        if result is None or "failed" in result or not result.get(name):
            raise Lacking(writer)
        row = result[name] if hop is None else result[name][hop]
        values = np.array([np.nan if value is None else value for value in row], float)
        drawn = values[self._rows(len(values))]
        known = np.isfinite(drawn)
        count = known.sum(1)
        total = np.where(known, drawn, 0.0).sum(1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def hops(self, writer: str) -> int:
        """How many hops a writer made."""
        result = self._done.get((self._setup, writer, self._seed))
        if result is None or "failed" in result:
            raise Lacking(writer)
        return len(result["recall"])

    def _rows(self, count: int) -> Array:
        if count not in self._drawn:
            draw = np.random.default_rng(derive_seed(self._seed, "questions", count))
            rows = draw.integers(0, count, (self._samples, count))
            self._drawn[count] = np.concatenate([np.arange(count)[None], rows])
        return self._drawn[count]


Value = Callable[[Means], Array]
"""A number of one seed's means, of the plain ones and of every resample's."""


def over_all(
    value: Value, done: Done, setup: str, seeds: Sequence[int], samples: int = SAMPLES
) -> tuple[list[float], tuple[float, float] | None]:
    """The value in each seed that has all it asks for, and the 95% interval of their mean (percentiles)."""
    columns = []
    for seed in seeds:
        try:
            found = np.asarray(value(Means(done, setup, seed, samples)), float)
        except Lacking:
            continue
        if np.isfinite(found[0]):
            columns.append(found)
    if not columns:
        return [], None
    single = [float(found[0]) for found in columns]
    draw = np.random.default_rng(0)
    table = np.stack([found[1:] for found in columns])
    n = len(columns)
    picked = draw.integers(0, n, (samples, n)) if n > 1 else np.zeros((samples, 1), int)
    means = table[picked, draw.integers(0, samples, (samples, n))].mean(1)
    known = means[np.isfinite(means)]
    if len(known) < LEAST_KNOWN * samples:
        return single, None
    low, high = np.quantile(known, [0.025, 0.975])
    return single, (float(low), float(high))


def settled(
    single: Sequence[float], interval: tuple[float, float] | None, bound: float, above: bool = True
) -> bool | None:
    """Whether a value lies above a bound (or below it): its interval does, and it does so in every seed."""
    holds = decided(float(np.mean(single)), interval, bound, above)
    right = [(one >= bound) if above else (one <= bound) for one in single]
    return holds if holds is None or all(flag == holds for flag in right) else None


def tau(lists: Sequence[Any], others: Sequence[Any]) -> Array:
    """Kendall's tau-a of two lists of (B,) arrays, resample by resample: pairs in the same order less pairs in the
    other order, over all pairs; a pair that ties in one of them counts for neither."""
    first, second = np.stack(lists), np.stack(others)
    total = np.zeros(first.shape[1])
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    for i, j in pairs:
        total += np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
    return total / len(pairs)

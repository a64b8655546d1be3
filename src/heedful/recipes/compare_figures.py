"""The figures that `heedful compare-methods` advises from, and when a difference between methods is decided.

It is where the 95% interval over held-out prompts excludes zero and every seed of training has the same sign.

Letters: S seeds, P held-out prompts, N samples of a prompt, K held-out pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.evals.intervals import Interval, bootstrap, per_prompt
from heedful.recipes.compare_plan import Arm

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Advice:
    """One thing found: what it is about, which side it takes, the sentence, and the figures."""

    about: str
    verdict: str
    text: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """How much higher one score is than another, with its interval over prompts. agree: whether every seed alone has
    the same sign."""

    interval: Interval
    agree: bool

    @property
    def side(self) -> int:
        """1 or -1 where it is decided, else 0."""
        if not self.interval.excludes_zero or not self.agree:
            return 0
        return 1 if self.interval.estimate > 0 else -1

    def __str__(self) -> str:
        return told(self.interval)


@dataclass(frozen=True)
class Figures:
    """What advice is made from. Scores are (S, P) by label, with the measure that ranks the methods."""

    arms: Mapping[str, Arm]
    scores: Mapping[str, Array]
    start: Array
    """(S, P): of the start model, by the same measure."""
    judged: Mapping[str, Array]
    """(S, P) by label: the judge's scores, which `scores` are too unless there is a gold judge."""
    probe: Array
    """(P, N): the judge's scores of samples of the start model."""
    judged_start: Array
    measure: str = "judge score"
    pairs: Sequence[Mapping[str, Any]] = ()
    """K rows: seed, prompt, overlap, gap, tokens (see `compare_pairs.closeness`)."""
    rewards: Mapping[str, Array] = field(default_factory=dict)
    """(K, 2) by label: h_w and h_l of contrastive methods."""
    usual: Mapping[str, float] = field(default_factory=dict)
    """rounds and epochs of the methods that have none of their own."""
    rates: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


def gap(a: Array, b: Array, *, seed: int = 0, level: float = 0.95) -> Gap:
    """How much higher b scores than a, (S, P) each on the same prompts and by the same seeds."""
    change = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    interval = bootstrap(change.T, seed=seed, level=level)
    signs = {float(np.sign(np.nanmean(row))) for row in change if not np.isnan(row).all()}
    return Gap(interval, signs == {float(np.sign(interval.estimate))})


def told(interval: Interval, form: str = "+.3g") -> str:
    """`+0.31 (+0.22 to +0.4)`."""
    if not interval.known:
        return f"{interval.estimate:{form}} (interval unknown)"
    return f"{interval.estimate:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def figures_of(name: str, interval: Interval) -> dict[str, float]:
    """An interval as flat numbers: name, name_low, name_high."""
    made = {name: interval.estimate}
    return made | ({f"{name}_low": interval.low, f"{name}_high": interval.high} if interval.known else {})


def mean_of(scores: Array) -> float:
    """The mean over prompts of the mean over seeds of (S, P) scores; NaN is no opinion."""
    return float(np.nanmean(per_prompt(np.asarray(scores).T)))


def best_of(found: Figures) -> str:
    """The label with the highest mean score; of equals the first."""
    return max(found.scores, key=lambda label: mean_of(found.scores[label]))

"""Which pair to ask about next: the one whose answer would say most about which heads are right.

Formulas as in the published code of epistemic neural networks (Osband et al. 2023), with the current weights. With
p_k the probability of head k that the first answer is better, and p their mean under the weights w:

entropy   H(p)                      the person's answer is open
bald      H(p) - sum_k w_k H(p_k)   the heads disagree about it (Houlsby et al. 2011)
variance  2 sum_k w_k (p_k - p)^2   over both answers

Letters: P pairs, K heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heedful.errors import HeedfulError
from heedful.judges.reweighting import sigmoid

Array = NDArray[np.floating]
Criterion = Literal["entropy", "bald", "variance"]


def entropy(p: Array) -> Array:
    """Of a choice between two, in nats."""
    inside = np.clip(p, 1e-12, 1 - 1e-12)
    return -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside))


class QueryPool:
    """Pairs that may be asked about. What does not depend on the weights is computed once.

    margins: (P, K), score of the first answer less that of the second, of every head.
    """

    def __init__(self, margins: ArrayLike) -> None:
        exact = np.asarray(margins, float)
        if exact.ndim != 2 or not np.isfinite(exact).all():
            raise HeedfulError(f"margins must be finite, (pairs, heads); their shape is {exact.shape}")
        # Half the memory is half the time of a new set of weights, and no criterion needs the other digits.
        self.margins: Array = exact.astype(np.float32)
        p = sigmoid(exact)
        self.probabilities: Array = p.astype(np.float32)
        self.entropies: Array = entropy(p).astype(np.float32)
        self.squares: Array = (p * p).astype(np.float32)

    def __len__(self) -> int:
        """P."""
        return len(self.margins)

    def values(self, weights: ArrayLike, criterion: Criterion = "bald") -> Array:
        """How much each pair would tell, (P,). Raises HeedfulError for another criterion."""
        w = np.asarray(weights, np.float32)
        if criterion not in get_args(Criterion):
            raise HeedfulError(
                f"there is no criterion {criterion!r}; known: {', '.join(get_args(Criterion))}"
            )
        mean = (self.probabilities @ w).astype(float)
        if criterion == "entropy":
            return entropy(mean)
        if criterion == "bald":
            return np.maximum(entropy(mean) - self.entropies @ w, 0)
        return 2 * np.maximum(self.squares @ w - mean * mean, 0)

    def choose(
        self,
        weights: ArrayLike,
        criterion: Criterion = "bald",
        *,
        batch: int = 1,
        exclude: Iterable[int] = (),
    ) -> list[int]:
        """The `batch` pairs to ask about together, the most telling first; fewer where no more are left.

        After each choice the others count by the share of their variance over heads that the chosen ones leave open
        (a pivoted Cholesky decomposition of the covariance of pairs over heads), so that near-copies are not asked
        about together. Equal values are taken in the order of the pool. Raises HeedfulError for another criterion, a
        batch below 1, and an index out of range.
        """
        if batch < 1:
            raise HeedfulError(f"the batch is {batch}; it must be 1 or more")
        values = self.values(weights, criterion)
        free = np.ones(len(self), bool)
        for i in exclude:
            if not 0 <= i < len(self):
                raise HeedfulError(f"pair {i} cannot be left out: the pool has {len(self)}")
            free[i] = False
        if batch == 1:
            return [int(np.argmax(np.where(free, values, -1)))] if free.any() else []
        w = np.asarray(weights, float)
        centred = (self.probabilities - (self.probabilities @ w)[:, None]) * np.sqrt(w)
        variance = np.square(centred).sum(1)
        left, chosen = variance.copy(), []
        factors = np.zeros((len(self), 0))
        for _ in range(min(batch, int(free.sum()))):
            open_share = np.clip(left / np.maximum(variance, 1e-30), 0, 1)
            # Where nothing is left open any more, the plain value still orders what remains.
            worth = np.where(free, values * np.maximum(open_share, 1e-6), -1)
            at = int(np.argmax(worth))
            chosen.append(at)
            free[at] = False
            if left[at] > 1e-12:
                column = (centred @ centred[at] - factors @ factors[at]) / np.sqrt(left[at])
                factors = np.concatenate([factors, column[:, None]], 1)
                left = np.maximum(left - column * column, 0)
        return chosen


def disagreement(margins: ArrayLike, weights: ArrayLike) -> float:
    """The chance that two heads, drawn by their weights, put a pair of the pool the other way round; margins (P, K)."""
    first = (np.sign(np.asarray(margins)) @ np.asarray(weights, float) + 1) / 2
    return float(np.mean(2 * first * (1 - first))) if len(first) else 0.0

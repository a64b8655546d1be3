"""Reweighting of an ensemble's heads by a few labels: HyRe (Lee et al. 2024, arXiv 2412.08812).

The weight of head k is its prior times exp(-L_k / T), where L_k is its loss SUMMED over the labels: a Bayes update, no
gradient step. A label costs O(K). Labels can come one by one and in any order, and the last ones can be taken back.

Letters: n labels, K heads.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heedful.errors import HeedfulError

Array = NDArray[np.float64]
Loss = Literal["log", "zero-one", "brier", "squared"]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def label_loss(loss: Loss, outputs: Array, labels: ArrayLike) -> Array:
    """The loss of every head for every label, (n, K). outputs: (n, K); labels: (n,).

    log, zero-one and brier read an output as the log odds that the first answer is better, and a label as the chance
    that the person finds so: 1, 0, or 0.5 for a tie, which zero-one takes as half an error of any head. squared is
    that of a regression: output and label are in the same unit. Raises HeedfulError for another loss.
    """
    if loss not in get_args(Loss):
        raise HeedfulError(f"there is no loss {loss!r}; known: {', '.join(get_args(Loss))}")
    target = np.asarray(labels, float)[:, None]
    if loss == "log":
        return np.logaddexp(0, outputs) - target * outputs
    if loss == "zero-one":
        return np.abs(0.5 * (1 + np.sign(outputs)) - target)
    if loss == "brier":
        return (sigmoid(outputs) - target) ** 2
    return (outputs - target) ** 2


class Reweighting:
    """The weights of K heads after the labels so far.

    prior: (K,) weights before any label, above 0; the same for all when left out. temperature: T.
    """

    def __init__(
        self,
        heads: int,
        *,
        prior: ArrayLike | None = None,
        loss: Loss = "log",
        temperature: float = 1.0,
    ) -> None:
        if heads < 1:
            raise HeedfulError(f"there are {heads} heads; at least one is needed")
        if not temperature > 0:
            raise HeedfulError(f"the temperature is {temperature}; it must be above 0")
        given = np.full(heads, 1 / heads) if prior is None else np.asarray(prior, float)
        if given.shape != (heads,) or not np.isfinite(given).all() or not (given > 0).all():
            raise HeedfulError(f"the prior must have {heads} finite numbers above 0, one for each head")
        label_loss(loss, np.zeros((1, 1)), [0.0])
        self.loss: Loss = loss
        self.temperature = temperature
        self.prior: Array = given / given.sum()
        # Sums with what rounding took from them (Knuth's two-sum): the order of labels is then lost to rounding too.
        self._sums: list[tuple[Array, Array]] = [(np.zeros(heads), np.zeros(heads))]
        self._each: list[Array] = []

    def __len__(self) -> int:
        """n."""
        return len(self._each)

    def add(self, outputs: ArrayLike, labels: ArrayLike) -> Reweighting:
        """Take n labels. outputs: (n, K) of the heads, see `label_loss`; labels: (n,).

        Raises HeedfulError for other shapes and for numbers that are not finite; nothing is taken then.
        """
        given, target = np.asarray(outputs, float), np.asarray(labels, float)
        if given.ndim != 2 or given.shape[1] != len(self.prior) or target.shape != given.shape[:1]:
            raise HeedfulError(
                f"outputs must be (labels, {len(self.prior)} heads) with one label each; they are {given.shape} "
                f"for labels of {target.shape}"
            )
        if not (np.isfinite(given).all() and np.isfinite(target).all()):
            raise HeedfulError("outputs and labels must be finite")
        for each in label_loss(self.loss, given, target):
            high, low = self._sums[-1]
            total = high + each
            part = total - high
            self._sums.append((total, low + ((high - (total - part)) + (each - part))))
            self._each.append(each)
        return self

    def undo(self, n: int = 1) -> Reweighting:
        """Take back the last `n` labels: all that depends on them is what it was, to the bit.

        Raises HeedfulError when there are fewer.
        """
        if not 0 <= n <= len(self):
            raise HeedfulError(f"{n} labels cannot be taken back: there are {len(self)}")
        if n:
            del self._sums[-n:], self._each[-n:]
        return self

    @property
    def losses(self) -> Array:
        """L: the loss of each head summed over the labels, (K,)."""
        high, low = self._sums[-1]
        return high + low

    @property
    def weights(self) -> Array:
        """(K,), of sum 1."""
        return self._weights(self.losses)

    @property
    def effective_heads(self) -> float:
        """1 / sum of squared weights: K when all count the same, 1 when one head is left."""
        return effective(self.weights)

    @property
    def best(self) -> int:
        """The head with the least loss; the first of several, so with no labels head 0."""
        return int(np.argmin(self.losses))

    def left_out(self) -> tuple[Array, Array]:
        """Without each label in turn: the weights (n, K), and the losses of the heads (n, K)."""
        if not self._each:
            return np.zeros((0, len(self.prior))), np.zeros((0, len(self.prior)))
        losses = self.losses - np.stack(self._each)
        return self._weights(losses), losses

    def _weights(self, losses: Array) -> Array:
        logs = np.log(self.prior) - losses / self.temperature
        weights = np.exp(logs - logs.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)


def effective(weights: Array) -> float:
    """The effective number of heads of weights (K,): 1 / sum of squares."""
    return float(1 / np.square(weights).sum())

"""Heads that share the pairs out among them: a mixture of reward models (MiCRo, Shen et al. 2025).

A pair's likelihood is sum_k pi_k sigma(w_k . (chosen - rejected)), fitted by expectation maximisation. Where it is
known who labelled a pair, all pairs of one annotator come from one component, far easier to tell apart than pairs are.

Departures: pi does not depend on the prompt (features of answers alone are given), and in place of the paper's entropy
term a symmetric Dirichlet prior keeps components from dying out.

Letters: N pairs, A annotators, D features, K heads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heedful.judges.heads import Making, Pairs, fit_linear_heads

Array = NDArray[np.float64]
ROUNDS, INNER, SETTLED = 50, 40, 1e-5
"""Of the EM: the most rounds, steps of each fit, and the gain in log-likelihood per pair at which it ends."""
ENTROPY = 0.5
"""Pseudo-pairs of the Dirichlet prior, as a share of the pairs that a component has on average."""


def fit_mixture(pairs: Pairs, how: Making, single: Array) -> Array:
    """The weights (D, K) of the components."""
    difference = pairs.difference
    n, size = difference.shape
    rng = np.random.default_rng([how.seed, 4])
    # Begun at the single head and as far from it as it is long, in random directions: components that are the same
    # would stay the same.
    length = max(float(np.linalg.norm(single)), 1e-3)
    weights = single[:, None] + length * rng.normal(size=(size, how.heads)) / np.sqrt(size)
    share = np.full(how.heads, 1 / how.heads)
    before = -np.inf
    for _ in range(ROUNDS):
        logs = np.log(share) - np.logaddexp(0, -difference @ weights)
        each, likelihood = _responsibilities(logs, np.log(share), pairs.annotators)
        counts = each if pairs.annotators is None else each[pairs.annotators]
        share = counts.sum(0) + ENTROPY * n / how.heads
        share /= share.sum()
        weights = fit_linear_heads(
            difference, how.heads, counts=counts, anchor=how.anchor, steps=INNER, start=weights
        )
        if likelihood - before < SETTLED * n:
            break
        before = likelihood
    return weights


def _responsibilities(logs: Array, prior: Array, annotators: NDArray[np.int64] | None) -> tuple[Array, float]:
    """(of each pair, or annotator, how much it belongs to each component; log-likelihood). logs: (N, K)."""
    if annotators is not None:
        total = np.zeros((int(annotators.max()) + 1, logs.shape[1]))
        np.add.at(total, annotators, logs - prior)
        logs = total + prior
    most = logs.max(1, keepdims=True)
    each = np.exp(logs - most)
    sums = each.sum(1, keepdims=True)
    return each / sums, float((most + np.log(sums)).sum())

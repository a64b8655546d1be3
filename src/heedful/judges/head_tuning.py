"""Fine-tuning one linear head on a few labels, its learning rate and steps chosen by cross-validation on these labels.

What reweighting is compared with, and what stands in where it cannot help. Steps of gradient descent from a head are
sums of the labelled differences, so all is done in the n numbers that say how often each was added: every fold and
every learning rate at once.

Letters: n labels, F folds, R rates, S places on the way where the steps may end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heedful.judges.reweighting import sigmoid

Array = NDArray[np.float64]
RATES = (0.1, 0.5, 2.0)
"""Learning rates, in units of one over the curvature of the loss."""
STOPS = (0, 1, 3, 10, 30, 100)
"""Steps after which it may end; 0 leaves the head as it is."""
FOLDS = 5
ONE_BY_ONE, FEW = 20, 10
"""Labels up to which each is left out alone, and the parts that more are left out in."""


@dataclass(frozen=True)
class Tuned:
    """How often each labelled difference is added to the head, (n,); and the rate and steps that were chosen."""

    parts: Array
    rate: float
    steps: int


def paths(start: Array, gram: Array, labels: Array, kept: Array) -> Array:
    """Where gradient descent goes: how often each difference was added, (F, R, S, n).

    start: (n,) margins of the head before; gram: (n, n) products of the differences; kept: (F, n) which labels are
    learned from in each fold. The loss is the mean log loss of the kept labels.
    """
    n = len(labels)
    share = kept / np.maximum(kept.sum(1, keepdims=True), 1)
    # Of the mean loss the curvature is at most a quarter of the largest eigenvalue of the kept rows' gram, over their
    # number; that of all rows bounds it, and is found once.
    most = 0.25 * np.linalg.eigvalsh(gram).max(initial=0) * share.max(1)
    rates = np.asarray(RATES) / np.maximum(most, 1e-12)[:, None]
    scale = rates[:, :, None] * share[:, None]
    parts, found = np.zeros((len(kept), len(RATES), n)), []
    for step in range(STOPS[-1] + 1):
        if step in STOPS:
            found.append(parts)
        parts = parts + scale * (labels - sigmoid(start + parts @ gram))
    return np.stack(found, 2)


def tune(start: Array, gram: Array, labels: Array) -> Tuned:
    """The parts after the rate and steps with the least log loss on held-out labels.

    With fewer than two labels nothing can be held out, and the head stays as it is.
    """
    return _tuned(start, gram, labels, np.ones((1, len(labels)), bool))[0]


def left_out(start: Array, gram: Array, labels: Array) -> Array:
    """The margin of each label from a head tuned on the others, rate and steps chosen without it too, (n,).

    One label is left out at a time, of more than ONE_BY_ONE a part of them.
    """
    if not len(labels):
        return np.zeros(0)
    count = len(labels) if len(labels) <= ONE_BY_ONE else FEW
    outside = _folds(start, gram, labels, count) == np.arange(count)[:, None]
    out = start.astype(float)
    for some, tuned in zip(outside, _tuned(start, gram, labels, ~outside), strict=True):
        out[some] += tuned.parts @ gram[:, some]
    return out


def _tuned(start: Array, gram: Array, labels: Array, here: NDArray[np.bool_]) -> list[Tuned]:
    """One for each row of here (F, n), the labels that exist: all rows go down their paths together."""
    folds = np.full(here.shape, -1)
    for row, kept in zip(folds, here, strict=True):
        row[kept] = _folds(start[kept], gram[np.ix_(kept, kept)], labels[kept], FOLDS)
    inside = here[:, None] & (folds[:, None] != np.arange(FOLDS + 1)[:, None])
    way = paths(start, gram, labels, inside.reshape(-1, len(labels)).astype(float))
    found = []
    for kept, fold, parts in zip(here, folds, way.reshape(*inside.shape[:2], *way.shape[1:]), strict=True):
        if kept.sum() < 2:
            found.append(Tuned(np.zeros(len(labels)), 0.0, 0))
            continue
        loss = np.zeros(parts.shape[1:3])
        for f in range(FOLDS):
            out = fold == f
            margin = start[out] + parts[f] @ gram[:, out]
            loss += (np.logaddexp(0, margin) - labels[out] * margin).sum(-1)
        # Of equal losses the fewest steps, then the lowest rate.
        stop, rate = np.unravel_index(int(np.argmin(loss.T)), loss.T.shape)
        found.append(Tuned(parts[-1, rate, stop], RATES[rate], STOPS[stop]))
    return found


def _folds(start: Array, gram: Array, labels: Array, most: int) -> NDArray[np.int64]:
    """A number below `most` for each label, dealt out from the labels that the head gets most wrong to the others.

    It depends on what was said of which pair alone, not on the order of labels or of the two answers.
    """
    order = np.lexsort((gram.diagonal(), (2 * labels - 1) * start))
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % min(most, max(1, len(labels)))
    return fold

"""Attention of one new token a row over that row's own keys, on the CPU: each row costs its own length, no more.

torch's attention takes rows of one length, so rows of many lengths cost what the longest does. Compiled by numba when
first called; what a row gets does not depend on the rows beside it, to the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit


def _attend(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    lengths: np.ndarray,
    scaling: np.float32,
    out: np.ndarray,
) -> None:
    """Store each row's new key and value behind its others and attend over all of them.

    Letters as in `sampling`; C slots of a row. query (R, H, D), key and value (R, K, D), keys and values (R, K, C, D),
    out (R, H, D), all float32 and contiguous; lengths (R,) int64, what each row holds already.
    """
    rows, heads, size = query.shape
    kv = keys.shape[1]
    groups = heads // kv
    scores = np.empty(keys.shape[2], np.float32)
    for r in range(rows):
        n = lengths[r] + 1
        for k in range(kv):
            for d in range(size):
                keys[r, k, n - 1, d] = key[r, k, d]
                values[r, k, n - 1, d] = value[r, k, d]
            for g in range(groups):
                h = k * groups + g
                best = np.float32(-np.inf)
                for t in range(n):
                    score = np.float32(0)
                    for d in range(size):
                        score += query[r, h, d] * keys[r, k, t, d]
                    score *= scaling
                    scores[t] = score
                    best = max(best, score)
                total = np.float32(0)
                for d in range(size):
                    out[r, h, d] = np.float32(0)
                for t in range(n):
                    weight = np.float32(math.exp(scores[t] - best))
                    total += weight
                    for d in range(size):
                        out[r, h, d] += weight * values[r, k, t, d]
                share = np.float32(1) / total
                for d in range(size):
                    out[r, h, d] *= share


def _compiled() -> Any:
    # Sums may be reordered, which is what makes them vectors; infinities and NaN keep their meaning.
    how: dict[str, Any] = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "nogil": True}
    try:
        return njit(cache=True, **how)(_attend)
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        return njit(**how)(_attend)


attend = _compiled()

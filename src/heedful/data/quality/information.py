"""Whether pairs of unlike answers teach more: the third of the three metrics of Shen et al. 2024 (2409.09603).

Similarity is the cosine of the two answers' embeddings. A longer pair is a more similar one, so the parts are also
drawn within strata of length: then neither lengths nor how often the longer answer wins differ between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.quality.compare import interval_of, resampled

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

STRATA = 10
ALIKE = 0.9
"""The absolute threshold: answers with a cosine from here on are called alike."""
ARMS = ("least similar", "most similar", "random", "least similar, length held", "most similar, length held")


def strata(words: NDArray[Any]) -> Ints:
    """Strata of pairs (N,): tenths of the two answers' words together, apart by which answer is longer."""
    total = words.sum(1)
    edges = np.quantile(total, np.linspace(0, 1, STRATA + 1)[1:-1])
    return np.searchsorted(edges, total) * 3 + np.sign(words[:, 0] - words[:, 1]).astype(np.int64) + 1


def parts(similarity: Array, words: NDArray[Any], seed: int) -> dict[str, Ints]:
    """The five training sets, rows of half of the pairs each: least and most similar, a random half, and least and most
    similar within each stratum of length. similarity (N,), words (N, 2), chosen first."""
    rng = np.random.default_rng([seed, 78])
    n = len(similarity)
    shuffled = rng.permutation(n)
    # Ties are broken at random, not by the order of the file.
    order = shuffled[np.argsort(similarity[shuffled], kind="stable")]
    half = n // 2
    stratum = strata(words)
    inner = order[np.argsort(stratum[order], kind="stable")]
    place = np.empty(n, np.int64)
    starts = np.flatnonzero(np.r_[True, np.diff(stratum[inner]) != 0]) if n else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, n])
    place[inner] = np.arange(n) - np.repeat(starts, lengths)
    size = np.empty(n, np.int64)
    size[inner] = np.repeat(lengths, lengths)
    rows = {
        ARMS[0]: order[:half],
        ARMS[1]: order[n - half :],
        ARMS[2]: shuffled[:half],
        ARMS[3]: np.flatnonzero(place < size // 2),
        ARMS[4]: np.flatnonzero(place >= size - size // 2),
    }
    return {name: np.sort(chosen) for name, chosen in rows.items()}


def information(right: Array, *, seed: int = 0) -> dict[str, Any]:
    """Accuracy of each arm and of the differences that matter, from (P, 5) mean correctness of each test prompt."""
    draws = resampled(right, seed)
    at = {name: j for j, name in enumerate(ARMS)}

    def gap(a: str, b: str) -> Any:
        return interval_of(right, lambda m: m[at[a]] - m[at[b]], draws=draws)

    return {
        "accuracy": {name: interval_of(right, lambda m, j=j: m[j], draws=draws) for name, j in at.items()},
        "least_over_random": gap(ARMS[0], ARMS[2]),
        "least_over_most": gap(ARMS[0], ARMS[1]),
        "least_over_most_length_held": gap(ARMS[3], ARMS[4]),
    }

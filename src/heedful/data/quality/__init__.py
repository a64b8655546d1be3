"""What can be said of preference pairs without a model: repeats, contradictions, near-duplicates, overlap, length.

Everything here takes arrays and gives plain numbers or arrays. Texts come in as fingerprints, so that a million pairs
fit into a few hundred megabytes. Near-duplicates are found by MinHash (Broder 1997) with banding (Leskovec, Rajaraman
and Ullman, Mining of Massive Datasets, 3rd edition, section 3.4).

Letters: N pairs, P prompts, H hashes of a signature.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Keys = NDArray[np.uint64]

HASHES, BANDS = 32, 8
"""Of a signature. Eight bands of four find 98% of the pairs of prompts whose Jaccard similarity is .8."""
ALIKE = 0.7
"""Share of equal hashes from which prompts count as near-duplicates."""
_RANDOM = np.random.default_rng(20240913)
_MULTIPLIERS = _RANDOM.integers(1, 2**63, HASHES, dtype=np.uint64) | np.uint64(1)
_ADDENDS = _RANDOM.integers(0, 2**63, HASHES, dtype=np.uint64)
_SHIFT = np.uint64(32)


# ---- repeats


class Repeats(NamedTuple):
    """Of each pair (N,): the first pair that is the same, or -1; whether another pair says the opposite; and whether
    most pairs of these two answers prefer the other one, or just as many do."""

    same_as: Ints
    contradicted: Bools
    outvoted: Bools


def repeats(high: Keys, low: Keys, side: Bools) -> Repeats:
    """Exact repeats and contradictions, from a 128-bit hash of prompt and both answers in one order, and whether the
    chosen one is the second of that order; each (N,)."""
    n = len(side)
    order = np.lexsort((np.arange(n), low, high))
    new = np.ones(n, bool)
    new[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    group = np.empty(n, np.int64)
    group[order] = np.cumsum(new) - 1
    groups = int(group.max()) + 1 if n else 0
    votes = np.stack([np.bincount(group[side == s], minlength=groups) for s in (False, True)], 1)
    firsts = np.full((groups, 2), n, np.int64)
    np.minimum.at(firsts, (group, side.astype(np.int64)), np.arange(n))
    mine = side.astype(np.int64)
    first = firsts[group, mine]
    ours, theirs = votes[group, mine], votes[group, 1 - mine]
    same = np.where(first < np.arange(n), first, -1)
    return Repeats(same, theirs > 0, (theirs > 0) & (theirs >= ours))


# ---- near-duplicate prompts


def signature(text: str) -> NDArray[np.uint32]:
    """MinHash of a text's word pairs, (H,) uint32: the share of equal places estimates the Jaccard similarity."""
    words = text.lower().split()
    shingles = {zlib.crc32(f"{a}\n{b}".encode()) for a, b in zip(["", *words], [*words, ""])}
    keys = np.fromiter(shingles, np.uint64, len(shingles))
    return ((keys[:, None] * _MULTIPLIERS + _ADDENDS) >> _SHIFT).min(0).astype(np.uint32)


def near_duplicates(signatures: NDArray[np.uint32]) -> Bools:
    """Which of P different prompts are almost the same as another one; signatures (P, H)."""
    return _alike(signatures, np.zeros(len(signatures), bool))


def near_duplicates_of(signatures: NDArray[np.uint32], others: NDArray[np.uint32]) -> Bools:
    """Which of P prompts are almost the same as one of the others, or the same; (P, H) and (Q, H)."""
    both = np.concatenate([signatures, others])
    theirs = np.arange(len(both)) >= len(signatures)
    return _alike(both, theirs, across=True)[: len(signatures)]


def _alike(signatures: NDArray[np.uint32], theirs: Bools, across: bool = False) -> Bools:
    """Prompts of one band's bucket are compared with the first and with their neighbour in it, of the other side where
    `across`: what is found is there, and of large buckets some may be missed."""
    found = np.zeros(len(signatures), bool)
    width = HASHES // BANDS
    for band in range(BANDS):
        part = signatures[:, band * width : (band + 1) * width].astype(np.uint64)
        _, key = np.unique(part @ _MULTIPLIERS[:width], return_inverse=True)
        order = np.lexsort((np.arange(len(key)), ~theirs, key))
        sorted_key = key[order]
        starts = np.flatnonzero(np.r_[True, sorted_key[1:] != sorted_key[:-1]]) if len(key) else key
        first = (
            order[starts][np.cumsum(np.r_[True, sorted_key[1:] != sorted_key[:-1]]) - 1] if len(key) else key
        )
        neighbour = np.r_[order[:1], order[:-1]]
        for other in (first, neighbour):
            pairs = (other != order) & (key[other] == sorted_key)
            pairs &= (theirs[other] != theirs[order]) if across else True
            a, b = order[pairs], other[pairs]
            equal = (signatures[a] == signatures[b]).mean(1) >= ALIKE
            found[a[equal]] = True
            found[b[equal]] = True
    return found


# ---- overlap


def shared(prompts: Keys, others: Keys) -> Bools:
    """Which pairs (N,) have a prompt that is among the others."""
    return np.isin(prompts, np.unique(others))


# ---- length


TIE = 1e-3
"""What characters count beside words: they decide where both answers have as many words, and nothing else."""


def length_features(words: NDArray[Any], characters: NDArray[Any]) -> Array:
    """What length alone says of a pair, (N, 1): log words of the chosen answer less those of the rejected one.

    words and characters are (N, 2), chosen first. One number, so that a model of it is the rule that the longer, or the
    shorter, answer wins; two numbers let words per sentence in by the back door.
    """
    by_words, by_characters = (
        np.log1p(np.asarray(counts[:, 0], float)) - np.log1p(np.asarray(counts[:, 1], float))
        for counts in (words, characters)
    )
    return (by_words + TIE * np.tanh(by_characters) * (by_words == 0))[:, None]


def chosen_longer(words: NDArray[Any]) -> Array:
    """(N,) 1 where the chosen answer has more words, .5 where both have as many, else 0."""
    chosen, rejected = words[:, 0], words[:, 1]
    return (chosen > rejected) + 0.5 * (chosen == rejected)


def balanced(right: Array, longer: Array) -> float:
    """Accuracy if the longer answer were chosen half of the time: the mean of the accuracies where it is and where
    it is not. NaN where one of the two does not occur. right, longer: (N,)."""
    sides = [right[longer == 1], right[longer == 0]]
    return float(np.mean([side.mean() for side in sides])) if all(map(len, sides)) else float("nan")


def quantiles(values: Sequence[float] | NDArray[Any]) -> dict[str, float]:
    """The mean and the 5, 25, 50, 75 and 95% quantiles."""
    values = np.asarray(values, float)
    at = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {"mean": float(values.mean())} | {
        f"q{100 * q:02.0f}": float(v) for q, v in zip(at, np.quantile(values, at))
    }


# ---- splits


def mixed(keys: Keys, *salts: int) -> Keys:
    """Hashes of hashes, a function of the key and the salts alone (the finaliser of SplitMix64, Steele et al. 2014)."""
    z = keys.astype(np.uint64)
    with np.errstate(over="ignore"):
        for salt in salts:
            z = z + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z


def held_out(prompts: Keys, share: float, seed: int) -> Bools:
    """Which pairs (N,) are for testing: all pairs of a prompt or none, and the same prompts in every file."""
    return mixed(prompts, seed, 1) < np.uint64(min(share * 2.0**64, 2**64 - 1))


def in_prompt_order(prompts: Keys, seed: int) -> Ints:
    """All N rows in an order in which the prompts are shuffled and the rows of a prompt stay together."""
    keys = mixed(prompts, seed, 2)
    return np.lexsort((np.arange(len(prompts)), keys))


def of_some_prompts(prompts: Keys, limit: int, seed: int) -> Ints:
    """The rows, in order, of at most `limit` prompts (N,), each of them whole."""
    order = in_prompt_order(prompts, seed)
    begins = np.flatnonzero(np.diff(prompts[order], prepend=prompts[order[:1]] + 1))
    return np.sort(order[: begins[limit]]) if limit < len(begins) else np.arange(len(prompts))


def one_of_each_prompt(prompts: Keys, seed: int) -> Ints:
    """A row of every prompt, drawn at random; prompts (N,), result in their order."""
    order = np.random.default_rng(seed).permutation(len(prompts))
    return np.sort(order[np.unique(prompts[order], return_index=True)[1]])


def folds(prompts: Keys, count: int, seed: int) -> Ints:
    """Which of `count` folds each pair (N,) is in; all pairs of a prompt are in one."""
    return (mixed(prompts, seed, 3) % np.uint64(count)).astype(np.int64)

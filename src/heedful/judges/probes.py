"""Probe reward models: cheap ones that say what can be learned from preference pairs, fitted again and again.

A linear probe is a Bradley-Terry model (Bradley and Terry 1952) of fixed features: logistic regression, without an
intercept, of which answer won on the difference of the two answers' features. TF-IDF of words takes seconds; embeddings
of MiniLM and the hidden states of a language model (`probe_models`) take minutes, once, because features are kept on
disk under the hash of what they were made from.

Letters: N pairs, D features.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heedful.atomic import write_file
from heedful.errors import HeedfulError

Array = NDArray[Any]
Rows = NDArray[np.int64]
Pair = tuple[Any, str, str]
"""Prompt (text or messages), chosen, rejected."""
Featurise = Callable[[Sequence[Pair]], dict[str, Array]]
"""Pairs to arrays that a part of the cache holds."""

PART = 10_000
"""Pairs in a part of the cache: what a kill can lose."""
HASHED = 2**20
"""Columns that words are hashed to."""
WIDEST = 2**18
"""Most columns of a space; a fit takes its time and memory by them."""
ONLY_WORDS = 200_000
"""Pairs beyond which TF-IDF leaves out pairs of words, so that a million fit into 4 GB."""
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularisations tried, as scikit-learn's C."""
TRIED = 50_000
"""Pairs on which they are tried. The best strength falls with the number of pairs, so what few pairs choose is too weak
a regularisation for many."""
CONVERGED = 1e-3
"""Of the gradient at zero weights, the share at which L-BFGS ends."""
LARGEST = 30.0
"""Margins are cut there: sigma(30) is 1 in float32."""


class Probe(Protocol):
    """A way to learn from pairs of one file, whatever the features."""

    def __call__(self, stage: str, train: Rows, flipped: Array, scored: Rows) -> Array:
        """Margins r(chosen) - r(rejected) of the scored rows after training on others, some with exchanged labels.

        stage names the fit; flipped (len(train),) says which training labels are exchanged.
        """
        ...


# ---- the cache


def cached_parts(
    folder: Path,
    key: str,
    count: int,
    pairs: Callable[[], Iterable[Pair]],
    make: Featurise,
    *,
    size: int = PART,
    tick: Callable[[int], None] | None = None,
) -> list[Path]:
    """The files with the features of `count` pairs, `size` in each; those that are there are not made again.

    key: everything the features depend on, the content of the file included. pairs: called when a part is missing,
    gives all pairs in order. Raises HeedfulError when a part cannot be written, and when `pairs` gives another number.
    """
    name = hashlib.sha256(json.dumps([key, count, size]).encode()).hexdigest()[:32]
    parts = [folder / f"{name}-{i:05}.npz" for i in range(-(-count // size))]
    if all(part.exists() for part in parts):
        return parts
    given = iter(pairs())
    for i, part in enumerate(parts):
        some = list(islice(given, size))
        if len(some) != min(size, count - i * size):
            raise HeedfulError(
                f"the file has changed since it was read: part {i} has {len(some)} pairs; start again"
            )
        if not part.exists():
            out = io.BytesIO()
            arrays: dict[str, Any] = make(some)
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise HeedfulError(
                    f"the features of pairs {i * size + 1} to {i * size + len(some)} are not all numbers (NaN or "
                    "infinite): the model is damaged, or --precision fp32 is needed"
                )
            np.savez(out, allow_pickle=False, **arrays)
            write_file(part, out.getvalue())
        if tick is not None:
            tick(min(count, (i + 1) * size))
    return parts


def read_part(path: Path) -> dict[str, Array]:
    """The arrays of a part. Raises HeedfulError when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise HeedfulError(
            f"{path} cannot be read back ({error}); delete it and run the same command again"
        ) from error


# ---- TF-IDF


def count_words(pairs: Sequence[Pair], *, two: bool) -> dict[str, Array]:
    """How often each word, and with `two` each pair of words, is in the two answers: hashed counts."""
    from sklearn.feature_extraction.text import HashingVectorizer

    # scikit-learn's annotations name fewer types than it takes.
    vectorizer: Any = HashingVectorizer
    hasher = vectorizer(
        n_features=HASHED,
        ngram_range=(1, 2 if two else 1),
        alternate_sign=False,
        norm=None,
        token_pattern=r"(?u)\b\w+\b",
        dtype=np.float32,
    )
    made = {}
    for i, side in enumerate(("chosen", "rejected"), start=1):
        counts: Any = hasher.transform([pair[i] for pair in pairs])
        made |= {
            f"{side}_data": np.minimum(counts.data, 65535).astype(np.uint16),
            f"{side}_indices": counts.indices.astype(np.int32),
            f"{side}_indptr": counts.indptr.astype(np.int32),
        }
    return made


@dataclass(frozen=True)
class Space:
    """How cached counts or embeddings become features: learned from training rows, used for all.

    idf: (HASHED,) weight of each column, 0 where it is left out; column: its new number. Of embeddings, scale (D,).
    """

    idf: Array | None = None
    column: Array | None = None
    width: int = 0
    scale: Array | None = None


def learn_space(parts: Sequence[Path], train: Array) -> Space:
    """The space of a file's training rows (a mask over all N): labels play no part in it.

    Of words, those that fewer than two training answers have are left out, and all but the WIDEST most frequent ones;
    the weight is log((1 + n) / (1 + df)) + 1.
    """
    first = read_part(parts[0])
    if "chosen_indptr" not in first:
        return _scale(parts, train)
    df = np.zeros(HASHED, np.int64)
    n = 0
    for part, kept in masked(parts, train):
        for side in ("chosen", "rejected"):
            rows = np.repeat(kept, np.diff(part[f"{side}_indptr"]))
            df += np.bincount(part[f"{side}_indices"][rows], minlength=HASHED)
            n += int(kept.sum())
    used = df >= 2
    if used.sum() > WIDEST:
        used[np.argsort(-df, kind="stable")[WIDEST:]] = False
    idf = np.where(used, np.log((1 + n) / (1 + df)) + 1, 0).astype(np.float32)
    column = np.cumsum(used, dtype=np.int32) - 1
    return Space(idf, column.astype(np.int32), int(used.sum()))


def _scale(parts: Sequence[Path], train: Array) -> Space:
    total, n = None, 0
    for part, kept in masked(parts, train):
        difference = part["chosen"][kept].astype(np.float64) - part["rejected"][kept]
        total = (difference**2).sum(0) + (0 if total is None else total)
        n += len(difference)
    assert total is not None
    scale = np.sqrt(total / max(1, n))
    return Space(width=len(scale), scale=np.where(scale > 1e-8, scale, 1.0).astype(np.float32))


def masked(parts: Sequence[Path], rows: Array) -> Iterator[tuple[dict[str, Array], Array]]:
    """(arrays of a part, mask of its pairs) of the parts that hold a row of the mask (N,), in order."""
    at = 0
    for path in parts:
        part = read_part(path)
        length = len(part["chosen_indptr"]) - 1 if "chosen_indptr" in part else len(part["chosen"])
        kept = rows[at : at + length]
        at += length
        if kept.any():
            yield part, kept


Source = tuple[Sequence[Path], Array]
"""The parts of a file and a mask of its pairs."""


def place(sources: Sequence[Source], space: Space) -> tuple[Any, Array]:
    """The features of the masked pairs of some files, one after the other: (difference (n, D), sparse for words,
    similarity of the two answers (n,))."""
    if space.scale is None:
        return _place_words(sources, space)
    count = sum(int(mask.sum()) for _, mask in sources)
    difference, similarity = np.empty((count, space.width), np.float32), np.empty(count)
    at = 0
    for part, kept in _all_masked(sources):
        stop = at + int(kept.sum())
        difference[at:stop] = (part["chosen"][kept] - part["rejected"][kept]) / space.scale
        similarity[at:stop] = part["similarity"][kept]
        at = stop
    return difference, similarity


def _all_masked(sources: Sequence[Source]) -> Iterator[tuple[dict[str, Array], Array]]:
    for parts, mask in sources:
        yield from masked(parts, mask)


def _place_words(sources: Sequence[Source], space: Space) -> tuple[Any, Array]:
    from scipy import sparse

    # One block for all parts: stacking them would hold everything twice. Pages that stay empty cost nothing.
    most = sum(
        int(np.diff(part[f"{side}_indptr"])[kept].sum())
        for part, kept in _all_masked(sources)
        for side in ("chosen", "rejected")
    )
    count = sum(int(mask.sum()) for _, mask in sources)
    data, indices = np.empty(most, np.float32), np.empty(most, np.int32)
    indptr = np.zeros(count + 1, np.int64 if most >= 2**31 else np.int32)
    similarity = np.empty(count)
    at, used = 0, 0
    for part, kept in _all_masked(sources):
        chosen, rejected = (weighted(part, side, kept, space) for side in ("chosen", "rejected"))
        n = chosen.shape[0]
        similarity[at : at + n] = np.asarray(chosen.multiply(rejected).sum(1)).ravel()
        difference = (chosen - rejected).tocsr()
        difference.eliminate_zeros()
        stop = used + difference.nnz
        data[used:stop], indices[used:stop] = difference.data, difference.indices
        indptr[at + 1 : at + n + 1] = used + difference.indptr[1:]
        at, used = at + n, stop
    made = sparse.csr_matrix((data[:used], indices[:used], indptr), shape=(count, space.width), copy=False)
    return made, np.clip(similarity, 0, 1)


def weighted(part: dict[str, Array], side: str, kept: Array, space: Space) -> Any:
    """Of the kept pairs (a mask), one side in a space of words: rows of unit length, (1 + log count) * idf, sparse."""
    from scipy import sparse
    from sklearn.preprocessing import normalize

    assert space.idf is not None and space.column is not None
    counts = sparse.csr_matrix(
        (part[f"{side}_data"].astype(np.float32), part[f"{side}_indices"], part[f"{side}_indptr"]),
        shape=(len(kept), HASHED),
    )[kept]
    weights = (1 + np.log(counts.data)) * space.idf[counts.indices]
    inside = weights > 0
    before = np.r_[0, np.cumsum(inside)]
    made = sparse.csr_matrix(
        (weights[inside], space.column[counts.indices[inside]], before[counts.indptr]),
        shape=(counts.shape[0], space.width),
    )
    return normalize(made)


# ---- fitting


def fit_linear(features: Any, train: Rows, flipped: Array, *, strength: float) -> Array:
    """Weights (D,) of the Bradley-Terry model of these training rows; flipped ones count the other way round.

    Minimises strength * (sum of log(1 + exp(-margin))) + |w|^2 / 2 by L-BFGS (Byrd et al. 1995), so `strength` is
    scikit-learn's C. The same rows give the same weights; fewer than two pairs give zeros.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    if len(train) < 2:
        return np.zeros(features.shape[1])
    rows = features[train]
    # A column that no training row has keeps the weight 0; most columns of words are such to a small subset.
    used = (
        np.flatnonzero(np.bincount(rows.indices, minlength=rows.shape[1]))
        if hasattr(rows, "indptr")
        else None
    )
    if used is not None:
        rows = _narrowed(rows, used)
    back = rows.T
    sign = np.where(flipped, -1, 1).astype(rows.dtype)
    penalty = 1 / (strength * len(train))

    def loss(weights: Array) -> tuple[float, Array]:
        # In the type of the rows: a product of two types makes a copy of all rows first.
        margin = sign * (rows @ weights.astype(rows.dtype))
        slope = -sign * expit(-margin) / len(train)
        value = float(np.logaddexp(0, -margin).mean(dtype=float)) + penalty / 2 * float(weights @ weights)
        return value, np.asarray(back @ slope.astype(rows.dtype), float) + penalty * weights

    start = np.zeros(rows.shape[1])
    # Where labels are noise the first gradient is small, and so a fixed tolerance would stop before the first step.
    least = max(1e-9, CONVERGED * float(np.abs(loss(start)[1]).max()))
    limits = {"maxiter": 300, "maxls": 50, "gtol": least, "ftol": 64 * np.finfo(float).eps}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=limits).x
    if used is None:
        return found
    weights = np.zeros(features.shape[1])
    weights[used] = found
    return weights


def _narrowed(rows: Any, used: Array) -> Any:
    """Sparse rows with the used columns only, (n, len(used)); the rows given are used up."""
    from scipy import sparse

    number = np.zeros(rows.shape[1], np.int32)
    number[used] = np.arange(len(used))
    return sparse.csr_matrix((rows.data, number[rows.indices], rows.indptr), shape=(rows.shape[0], len(used)))


def margins(features: Any, rows: Rows, weights: Array) -> Array:
    """r(chosen) - r(rejected) of these rows, cut to +-LARGEST."""
    return np.clip(np.asarray(features[rows] @ weights, float), -LARGEST, LARGEST)


def pick_strength(features: Any, train: Rows, fold: Array) -> float:
    """The strength of STRENGTHS with the lowest log loss on folds of the training rows; fold (len(train),)."""
    train, fold = train[:TRIED], fold[:TRIED]
    losses = []
    for strength in STRENGTHS:
        loss = 0.0
        for k in np.unique(fold):
            inside, outside = train[fold != k], train[fold == k]
            if len(inside) < 2:
                continue
            weights = fit_linear(features, inside, np.zeros(len(inside), bool), strength=strength)
            loss += float(np.logaddexp(0, -margins(features, outside, weights)).sum())
        losses.append(loss)
    return STRENGTHS[int(np.argmin(losses))]


def linear_probe(features: Any, *, strength: float) -> Probe:
    """A probe on features (N, D)."""

    def probe(stage: str, train: Rows, flipped: Array, scored: Rows) -> Array:
        return margins(features, scored, fit_linear(features, train, flipped, strength=strength))

    return probe

"""K reward heads over fixed features, all computed in one matrix product, and the ways to make them.

Every trained head has its own Bradley-Terry loss, and the mean over heads is minimised: a loss of the averaged
prediction would let heads lean on each other. A head is f_k(x) = g_k(x) + scale * p_k(x) with a random p_k that never
changes (Osband et al. 2018, arXiv 1806.03335): where data are silent, p_k stays.

What keeps it there is the optimiser. Its steps never leave the span of the data (a fixed bound on the curvature,
Boehning and Lindsay 1988, maps the span to itself), and decay pulls g_k, never the sum, towards zero. Adam, or decay of
the sum, would wash out what makes heads differ. In the span there is one optimum for a linear p_k: data that settle
everything make all heads the same.

Letters: N pairs, D features, K heads, H hidden units, n answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heedful.errors import HeedfulError
from heedful.judges.reweighting import sigmoid

Array = NDArray[np.float64]
Builder = Literal["prior", "epinet", "bootstrap", "pca", "random", "annotator", "mixture"]
HIDDEN = 64
"""Units of the random layer that non-linear priors share."""
STEPS, CONVERGED = 200, 1e-3
"""Of a fit: the most steps, and the share of the gradient at the start at which it ends."""
CHUNK = 4096
"""Answers scored at once."""


@dataclass(frozen=True)
class Heads:
    """K heads: arrays, and how they make scores.

    linear: `weights` (D, K), and for a non-linear prior `hidden` (D, H), `shift` (H,), `prior` (H, K).
    epinet: see `heads_epinet`. scores: the features of an answer are its K scores. single: (D,), one head that has no
    prior and saw all pairs, the reference for everything; of saved scores it is the first column. fitted: False
    for directions, which nobody's labels were fitted to.
    """

    kind: Literal["linear", "epinet", "scores"]
    arrays: Mapping[str, Array]
    names: tuple[str, ...]
    single: Array
    about: str = ""
    fitted: bool = True

    @property
    def size(self) -> int:
        """D."""
        return len(self.single)

    def scores(self, features: ArrayLike) -> Array:
        """(n, D) -> (n, K), not scaled. Raises HeedfulError for another shape."""
        x = matrix(features, self.size)
        if self.kind == "scores":
            return x
        if self.kind == "epinet":
            from heedful.judges.heads_epinet import epinet_scores

            made = [epinet_scores(self.arrays, x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)]
            return np.concatenate(made) if made else np.zeros((0, len(self.names)))
        made = x @ self.arrays["weights"]
        if "hidden" in self.arrays:
            made += hidden_layer(self.arrays, x) @ self.arrays["prior"]
        return made


def matrix(features: ArrayLike, size: int | None = None) -> Array:
    """Features as (n, D) in float64. Raises HeedfulError for another shape and for what is not finite."""
    x = np.asarray(features, float)
    if x.ndim != 2 or (size is not None and x.shape[1] != size):
        wanted = "a matrix (answers, features)" if size is None else f"(answers, {size})"
        raise HeedfulError(f"features must be {wanted}; they have the shape {x.shape}")
    if not np.isfinite(x).all():
        raise HeedfulError(
            f"features must be finite; row {int(np.flatnonzero(~np.isfinite(x).all(1))[0])} is not"
        )
    return x


def hidden_layer(arrays: Mapping[str, Array], x: Array) -> Array:
    """The random layer of a non-linear prior, (n, H)."""
    return np.maximum(x @ arrays["hidden"] + arrays["shift"], 0)


@dataclass(frozen=True)
class Making:
    """How heads are made.

    prior: linear, or mlp for a random layer of ReLUs in front of it. anchor: of the learned part, the weight of
    |g|^2 / 2 against the loss summed over pairs.
    """

    heads: int = 100
    builder: Builder = "prior"
    prior_scale: float = 1.0
    prior: Literal["linear", "mlp"] = "linear"
    anchor: float = 1.0
    steps: int = STEPS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.builder not in get_args(Builder):
            raise HeedfulError(f"there is no builder {self.builder!r}; known: {', '.join(get_args(Builder))}")
        if self.prior not in ("linear", "mlp"):
            raise HeedfulError(f"there is no prior {self.prior!r}; known: linear, mlp")
        if self.heads < 2:
            raise HeedfulError(f"{self.heads} head(s): at least two are needed, or there is nothing to weigh")
        if self.prior_scale < 0 or self.anchor < 0 or self.steps < 1:
            raise HeedfulError("prior_scale and anchor must not be negative, and steps must be 1 or more")


@dataclass(frozen=True)
class Pairs:
    """What heads are made from. annotators: (N,) numbers, with their names; empty when not known."""

    chosen: Array
    rejected: Array
    annotators: NDArray[np.int64] | None = None
    annotator_names: tuple[str, ...] = field(default=())

    @property
    def difference(self) -> Array:
        """chosen - rejected, (N, D)."""
        return self.chosen - self.rejected


def build(
    chosen: ArrayLike,
    rejected: ArrayLike,
    how: Making,
    *,
    annotators: Sequence[str | int] | NDArray | None = None,
) -> Heads:
    """Make heads from N pairs, (N, D) each side.

    Raises HeedfulError for other shapes, no pairs, and where the builder annotator has no annotators.
    """
    pairs = _checked(chosen, rejected, annotators)
    single = fit_linear_heads(pairs.difference, 1, anchor=how.anchor, steps=how.steps)[:, 0]
    return _BUILDERS[how.builder](pairs, how, single)


def _checked(
    chosen: ArrayLike, rejected: ArrayLike, annotators: Sequence[str | int] | NDArray | None
) -> Pairs:
    left = matrix(chosen)
    right = matrix(rejected, left.shape[1])
    if len(left) != len(right) or not len(left):
        raise HeedfulError(
            f"{len(left)} chosen answers and {len(right)} rejected ones: one pair or more is needed"
        )
    if annotators is None:
        return Pairs(left, right)
    names, numbers = np.unique(np.asarray(annotators).astype(str), return_inverse=True)
    if numbers.shape != (len(left),):
        raise HeedfulError(f"{numbers.size} annotators for {len(left)} pairs: one for each is needed")
    return Pairs(left, right, numbers, tuple(map(str, names)))


# ---- fitting


def fit_linear_heads(
    difference: Array,
    heads: int,
    *,
    offset: Array | None = None,
    counts: Array | None = None,
    anchor: float = 1.0,
    steps: int = STEPS,
    start: Array | None = None,
) -> Array:
    """The learned part g (D, K) of K heads: for each the least of its Bradley-Terry loss plus anchor |g|^2 / 2.

    offset: (N, K), what the part that does not learn says of each pair. counts: (N, K) weight of each pair for each
    head, 1 when left out. start: (D, K) in the span of the differences, zero when left out. Full batches: the same
    input gives the same bits, and g stays in the span of the differences.
    """
    size = difference.shape[1]
    g = np.zeros((size, heads)) if start is None else start.copy()
    # No curvature is above this one, since sigma' <= 1/4; one matrix for all heads, so that they stay one product.
    bound = 0.25 * difference.T @ difference + anchor * np.eye(size)
    if not bound.any():
        return g
    inverse = np.linalg.inv(bound + 1e-9 * np.trace(bound) / size * np.eye(size))
    rate = 1.0 if counts is None else 1 / _largest(difference, counts, anchor, inverse)
    ahead, first, turns = g, None, 0
    for _ in range(steps):
        margin = difference @ ahead
        if offset is not None:
            margin += offset
        wrong = sigmoid(-margin)
        if counts is not None:
            wrong *= counts
        gradient = anchor * ahead - difference.T @ wrong
        size_now = np.abs(gradient).max(0)
        first = np.maximum(size_now, 1e-12) if first is None else first
        if (size_now <= CONVERGED * first).all():
            return ahead
        new = ahead - rate * (inverse @ gradient)
        move = new - g
        # Momentum that points uphill is dropped (O'Donoghue and Candes 2015).
        turns = 0 if float((gradient * move).sum()) > 0 else turns + 1
        ahead = new + turns / (turns + 3) * move
        g = new
    return g


def _largest(difference: Array, counts: Array, anchor: float, inverse: Array) -> Array:
    """For each head, by what the curvature with its counts may be above the bound without them, (K,); a little more,
    since power iteration comes from below."""
    v = difference.T @ counts + anchor
    found = np.ones(counts.shape[1])
    for _ in range(20):
        v /= np.maximum(np.linalg.norm(v, axis=0), 1e-300)
        image = inverse @ (0.25 * difference.T @ (counts * (difference @ v)) + anchor * v)
        found = np.linalg.norm(image, axis=0)
        v = image
    return 1.2 * np.maximum(found, 1e-12)


def numbered(count: int) -> tuple[str, ...]:
    """Names for heads that have none."""
    return tuple(f"head {i + 1}" for i in range(count))


# ---- builders


def _prior(pairs: Pairs, how: Making, single: Array) -> Heads:
    rng = np.random.default_rng([how.seed, 1])
    size, arrays = pairs.chosen.shape[1], {}
    if how.prior == "linear":
        fixed = how.prior_scale * rng.normal(size=(size, how.heads))
        offset = pairs.difference @ fixed
    else:
        fixed = np.zeros((size, how.heads))
        arrays = {
            "hidden": rng.normal(size=(size, HIDDEN)) / np.sqrt(size),
            "shift": rng.normal(size=HIDDEN),
            "prior": how.prior_scale * rng.normal(size=(HIDDEN, how.heads)) / np.sqrt(HIDDEN),
        }
        offset = (hidden_layer(arrays, pairs.chosen) - hidden_layer(arrays, pairs.rejected)) @ arrays["prior"]
    g = fit_linear_heads(pairs.difference, how.heads, offset=offset, anchor=how.anchor, steps=how.steps)
    about = f"{how.heads} heads with frozen random {how.prior} priors of scale {how.prior_scale:g}"
    return Heads("linear", {"weights": g + fixed, **arrays}, numbered(how.heads), single, about)


def _bootstrap(pairs: Pairs, how: Making, single: Array) -> Heads:
    rng = np.random.default_rng([how.seed, 2])
    n = len(pairs.chosen)
    counts = rng.multinomial(n, np.full(n, 1 / n), how.heads).T.astype(float)
    start = np.repeat(single[:, None], how.heads, 1)
    g = fit_linear_heads(
        pairs.difference, how.heads, counts=counts, anchor=how.anchor, steps=how.steps, start=start
    )
    return Heads(
        "linear",
        {"weights": g},
        numbered(how.heads),
        single,
        f"{how.heads} heads, each fitted to pairs drawn anew with replacement",
    )


def _pca(pairs: Pairs, how: Making, single: Array) -> Heads:
    """Decomposed reward models (Luo et al. 2025, arXiv 2502.13131): principal directions both ways."""
    difference = pairs.difference
    values, vectors = np.linalg.eigh(difference.T @ difference)
    order = np.argsort(values)[::-1]
    kept = [i for i in order if values[i] > 1e-10 * max(values.max(), 1e-300)][: how.heads // 2]
    if not kept:
        raise HeedfulError("the two answers of every pair have the same features: they have no directions")
    directions = vectors[:, kept]
    # eigh leaves the sign open; the largest entry decides it, so that names keep their meaning.
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(len(kept))])
    names = tuple(f"direction {i + 1}{sign}" for sign in "+-" for i in range(len(kept)))
    return Heads(
        "linear",
        {"weights": np.concatenate([directions, -directions], 1)},
        names,
        single,
        f"{len(kept)} principal directions of the differences, each both ways",
        fitted=False,
    )


def _random(pairs: Pairs, how: Making, single: Array) -> Heads:
    rng = np.random.default_rng([how.seed, 3])
    weights = rng.normal(size=(pairs.chosen.shape[1], how.heads))
    return Heads(
        "linear",
        {"weights": weights},
        numbered(how.heads),
        single,
        f"{how.heads} random directions",
        fitted=False,
    )


def _annotator(pairs: Pairs, how: Making, single: Array) -> Heads:
    """One head for each annotator, drawn to the head of all of them: who said little differs little from it."""
    if pairs.annotators is None or len(pairs.annotator_names) < 2:
        raise HeedfulError("the builder annotator needs pairs of two annotators or more; give annotators=")
    difference, columns = pairs.difference, []
    for i in range(len(pairs.annotator_names)):
        own = difference[pairs.annotators == i]
        offset = (own @ single)[:, None]
        g = fit_linear_heads(own, 1, offset=offset, anchor=how.anchor, steps=how.steps)
        columns.append(single + g[:, 0])
    return Heads(
        "linear",
        {"weights": np.stack(columns, 1)},
        pairs.annotator_names,
        single,
        f"one head for each of {len(columns)} annotators",
    )


def _mixture(pairs: Pairs, how: Making, single: Array) -> Heads:
    from heedful.judges.heads_mixture import fit_mixture

    weights = fit_mixture(pairs, how, single)
    return Heads(
        "linear",
        {"weights": weights},
        numbered(how.heads),
        single,
        f"a mixture of {how.heads} reward models",
    )


def _epinet(pairs: Pairs, how: Making, single: Array) -> Heads:
    from heedful.judges.heads_epinet import fit_epinet

    arrays = fit_epinet(pairs, how)
    about = f"an epinet with {how.heads} indices, prior of scale {how.prior_scale:g}"
    return Heads("epinet", arrays, numbered(how.heads), single, about)


_BUILDERS: dict[str, Callable[[Pairs, Making, Array], Heads]] = {
    "prior": _prior,
    "epinet": _epinet,
    "bootstrap": _bootstrap,
    "pca": _pca,
    "random": _random,
    "annotator": _annotator,
    "mixture": _mixture,
}

"""A reward for one person: heads that disagree where the data are silent, weighed by a few of this person's labels.

    reward = PersonalReward().fit(chosen, rejected)
    pair = reward.query(first, second)[0]
    reward.adapt(first[[pair]], second[[pair]], [1])
    reward.predict(features)

HyRe (Lee et al. 2024, arXiv 2412.08812), with what its paper leaves out: it says whether reweighting helps, and uses
something else where it does not (`reweighting_diagnosis`).

Letters: N pairs, n answers, P pairs of a pool, D features, K heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heedful.errors import HeedfulError
from heedful.judges import head_tuning
from heedful.judges.heads import Builder, Heads, Making, build, matrix, numbered
from heedful.judges.reweighting import Loss, Reweighting, effective, sigmoid
from heedful.judges.reweighting_diagnosis import Diagnosis, Used, diagnose
from heedful.judges.reweighting_queries import Criterion, QueryPool

if TYPE_CHECKING:
    from heedful.run import Run

Array = NDArray[np.float64]
MARGIN = 1.0
"""Root mean square margin of a head whose own scale means nothing, as in the code of arXiv 2502.13131: sigma(1) is .73,
about what one direction or one stranger's reward model is worth."""
POOL_PAIRS = 2000
"""Pairs of the pool that the disagreement of the heads is measured on."""


class PersonalReward:
    """K reward heads and the weights that one person's labels give them.

    builder: see `heads.build`. loss, temperature: see `Reweighting`. average: whether the probability that the person
    prefers an answer comes from the mean reward or is the mean of the heads' probabilities. margin: the root mean
    square of a head's margin between two answers of the pool; by default that of the median head where heads were
    fitted, and MARGIN where their scale means nothing (directions, saved scores).
    """

    def __init__(
        self,
        *,
        heads: int = 100,
        builder: Builder = "prior",
        prior_scale: float = 1.0,
        prior: Literal["linear", "mlp"] = "linear",
        anchor: float = 1.0,
        loss: Loss = "log",
        temperature: float = 1.0,
        average: Literal["reward", "probability"] = "reward",
        margin: float | None = None,
        seed: int = 0,
    ) -> None:
        self.how = Making(heads, builder, prior_scale, prior, anchor, seed=seed)
        self.loss: Loss = loss
        self.temperature, self.average, self.margin = temperature, average, margin
        if average not in ("reward", "probability"):
            raise HeedfulError(f"there is no average {average!r}; known: reward, probability")
        if margin is not None and not margin > 0:
            raise HeedfulError(f"the margin is {margin}; it must be above 0")
        Reweighting(1, loss=loss, temperature=temperature)  # refuses now what it would refuse after the fit
        self._heads: Heads | None = None
        self._begin()

    # ---- heads

    def fit(
        self,
        chosen: ArrayLike,
        rejected: ArrayLike,
        *,
        annotators: Sequence[str | int] | NDArray | None = None,
        names: Sequence[str] | None = None,
        run: Run | None = None,
    ) -> PersonalReward:
        """Make the heads from pairs of many people, (N, D) each side; the answers are the pool until `set_pool`.

        annotators: (N,), who labelled each pair; the builders annotator and mixture use it. names: one for each head.
        run: keeps the heads in its folder, so that a second call reads them back. Labels from before are dropped.
        Raises HeedfulError as `heads.build` does.
        """
        from heedful.judges.personal_files import kept_heads

        def make() -> Heads:
            return build(chosen, rejected, self.how, annotators=annotators)

        self._take(make() if run is None else kept_heads(run, make), names)
        return self.set_pool(chosen, rejected)

    @classmethod
    def from_scores(
        cls, pool_scores: ArrayLike, *, names: Sequence[str] | None = None, **options: Any
    ) -> PersonalReward:
        """Heads that are other people's reward models: (answers, K) saved scores, which give each head's scale.

        The features of an answer are then its K raw scores, everywhere. The single head is the first column.
        Raises HeedfulError for scores that are not a finite matrix of two columns or more.
        """
        scores = matrix(pool_scores)
        if scores.shape[1] < 2:
            raise HeedfulError(
                "saved scores of one model: at least two are needed, or there is nothing to weigh"
            )
        made = cls(**{"heads": scores.shape[1], **options})
        first = np.eye(scores.shape[1])[0]
        made._take(Heads("scores", {}, numbered(scores.shape[1]), first, "saved scores"), names)
        return made.set_pool(scores)

    @classmethod
    def from_weights(
        cls,
        weights: ArrayLike,
        pool: ArrayLike,
        *,
        single: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        **options: Any,
    ) -> PersonalReward:
        """Linear heads that were trained elsewhere, such as through a language model (`ensemble`): weights (D, K).

        pool: (n, D). single: (D,), the mean of the heads when left out.
        """
        given = matrix(weights)
        made = cls(**{"heads": given.shape[1], **options})
        one = given.mean(1) if single is None else np.asarray(single, float)
        about = "heads trained elsewhere"
        made._take(Heads("linear", {"weights": given}, numbered(given.shape[1]), one, about), names)
        return made.set_pool(pool)

    def set_pool(self, features: ArrayLike, second: ArrayLike | None = None) -> PersonalReward:
        """Unlabelled answers (n, D) that give each head its scale, so that none dominates for its large numbers.

        second: the other answers of the same prompts, where the pool is pairs: what prompts do to the scores of both
        answers then plays no part. Without it answers are paired as they come. Labels stay, and are weighed anew.
        Raises HeedfulError for fewer than two answers.
        """
        heads = self._made
        one, single = heads.scores(features), matrix(features, heads.size) @ heads.single
        if second is None:
            if len(one) < 2:
                raise HeedfulError(f"the pool has {len(one)} answers; at least two are needed")
            # A walk through all of them in a fixed random order: neighbours may answer the same prompt.
            order = np.random.default_rng(0).permutation(len(one))
            margins, alone = one[order] - one[np.roll(order, 1)], single[order] - single[np.roll(order, 1)]
        else:
            margins = one - heads.scores(second)
            alone = single - matrix(second, heads.size) @ heads.single
        if not len(margins):
            raise HeedfulError("the pool is empty; at least one pair is needed")
        sizes, size = np.sqrt(np.square(margins).mean(0)), float(np.sqrt(np.square(alone).mean()))
        meant = heads.kind != "scores" and heads.fitted
        typical = self.margin or (float(np.median(sizes)) if meant else MARGIN)
        self._scale = np.divide(typical, sizes, out=np.zeros_like(sizes), where=sizes > 1e-12)
        # The single head was fitted to what people say, so its own size is kept unless the user asked for one.
        wanted = self.margin or (MARGIN if heads.kind == "scores" else size)
        self._single: Array = heads.single * (wanted / size if size > 1e-12 else 1.0)
        if heads.kind == "scores":  # fine-tuning then takes columns of one size as its features
            self._single = heads.single
        some = margins[:: max(1, len(margins) // POOL_PAIRS)][:POOL_PAIRS]
        self._pool = (some * self._scale).astype(np.float32)
        labels = self.labels_
        self._begin()
        for first, other, label in labels:
            self.adapt(first[None], other[None], [label])
        return self

    def head_scores(self, features: ArrayLike) -> Array:
        """(n, D) -> (n, K): what every head thinks of each answer, on the scale of the pool."""
        return self._made.scores(features) * self._scale

    @property
    def single_(self) -> Array:
        """The single head on the scale of the pool, (D,)."""
        return self._single

    @property
    def heads_(self) -> list[str]:
        """Their names."""
        return list(self._made.names)

    # ---- labels

    def adapt(self, first: ArrayLike, second: ArrayLike, label: ArrayLike) -> PersonalReward:
        """Take n labels: 1 the first answer is better, 0 the second, 0.5 neither. (n, D), (n, D), (n,).

        Order does not matter, and n labels at once do what they do one by one. Raises HeedfulError for other labels
        and shapes; nothing is taken then.
        """
        size = self._made.size
        left, right = matrix(first, size), matrix(second, size)
        labels = np.asarray(label, float).reshape(-1)
        if not len(left) == len(right) == len(labels):
            raise HeedfulError(
                f"{len(left)} first answers, {len(right)} second ones and {len(labels)} labels"
            )
        if not np.isin(labels, (0, 0.5, 1)).all():
            raise HeedfulError("a label is 1 (the first is better), 0 (the second is better) or 0.5 (a tie)")
        # Row by row: a product of more rows may round otherwise, and the weights must not depend on that.
        margins = [self.head_scores(a[None]) - self.head_scores(b[None]) for a, b in zip(left, right)]
        if margins:
            given = np.concatenate(margins)
            target = 2 * labels - 1 if self.loss == "squared" else labels
            self._reweighting.add(given, target)
            self._margins += list(given)
            self.labels_ += [(a, b, float(y)) for a, b, y in zip(left, right, labels)]
            self._known = {}
        return self

    def undo(self, n: int = 1) -> PersonalReward:
        """Take back the last `n` labels; the weights are what they were, to the bit.

        Raises HeedfulError when there are fewer.
        """
        self._reweighting.undo(n)
        if n:
            del self._margins[-n:], self.labels_[-n:]
            self._known = {}
        return self

    @property
    def weights_(self) -> Array:
        """(K,), of sum 1."""
        return self._reweighting.weights

    @property
    def effective_heads_(self) -> float:
        """1 / sum of squared weights."""
        return effective(self.weights_)

    @property
    def tuned_(self) -> Array:
        """What fine-tuning on the labels adds to the single head, (D,); see `head_tuning`."""
        if "tuned" not in self._known:
            x, labels = self._labelled()
            self._known["tuned"] = x.T @ head_tuning.tune(x @ self._single, x @ x.T, labels).parts
        return self._known["tuned"]

    # ---- what to ask

    def query_pool(self, first: ArrayLike, second: ArrayLike) -> QueryPool:
        """Pairs (P, D) to choose from again and again: heads score them once. To be made anew after `set_pool`."""
        return QueryPool(self.head_scores(first) - self.head_scores(second))

    def query(
        self,
        first: ArrayLike | QueryPool,
        second: ArrayLike | None = None,
        *,
        criterion: Criterion = "bald",
        batch: int = 1,
        exclude: Iterable[int] = (),
    ) -> list[int]:
        """Which pairs to ask about next, with the current weights: indices, the most telling first.

        first, second: (P, D), or first a `query_pool`. See `QueryPool.choose`.
        """
        if not isinstance(first, QueryPool):
            if second is None:
                raise HeedfulError("the second answers of the pool are missing")
            first = self.query_pool(first, second)
        return first.choose(self.weights_, criterion, batch=batch, exclude=exclude)

    # ---- the personal reward

    def predict(self, features: ArrayLike, used: Used | None = None) -> Array:
        """The reward (n,) of answers (n, D). used: which arm; what `diagnose` decided when left out."""
        used = self._used(used)
        if used in ("single", "fine_tuned"):
            x = self._tunable(features)
            return x @ (self._single + self.tuned_ if used == "fine_tuned" else self._single)
        scores = self.head_scores(features)
        if used == "best_head":
            return scores[:, self._reweighting.best]
        return scores @ (self.weights_ if used == "reweighting" else self._reweighting.prior)

    def probability(self, first: ArrayLike, second: ArrayLike, used: Used | None = None) -> Array:
        """The chance (n,) that the person prefers the first answer."""
        used = self._used(used)
        if self.average == "probability" and used in ("reweighting", "uniform"):
            weights = self.weights_ if used == "reweighting" else self._reweighting.prior
            return sigmoid(self.head_scores(first) - self.head_scores(second)) @ weights
        return sigmoid(self.predict(first, used) - self.predict(second, used))

    def diagnose(self) -> Diagnosis:
        """Whether reweighting helps, what is used instead where not, and why; see `reweighting_diagnosis`."""
        if "diagnosis" not in self._known:
            differences, labels = self._labelled()
            self._known["diagnosis"] = diagnose(
                self._reweighting,
                np.array(self._margins).reshape(len(labels), len(self._made.names)),
                differences @ self._single,
                differences @ differences.T,
                labels,
                self._pool,
                fitted=self._made.fitted,
            )
        return self._known["diagnosis"]

    # ---- on disk

    def save(self, folder: str | Path) -> None:
        """Write personal.json and heads.safetensors, whole or not at all."""
        from heedful.judges.personal_files import write

        write(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> PersonalReward:
        """Read them back: the same weights to the bit.

        Raises HeedfulError naming the file that is missing or damaged.
        """
        from heedful.judges.personal_files import read

        return read(cls, Path(folder))

    # ---- inside

    def _take(self, heads: Heads, names: Sequence[str] | None) -> None:
        """New heads, and no labels."""
        if names is not None:
            if len(names) != len(heads.names):
                raise HeedfulError(f"{len(names)} names for {len(heads.names)} heads")
            heads = replace(heads, names=tuple(map(str, names)))
        # One layout in memory: products over another one may round otherwise, and loading must give the same bits.
        arrays = {name: np.array(array, order="C") for name, array in heads.arrays.items()}
        self._heads = replace(heads, arrays=arrays, single=np.array(heads.single, order="C"))
        self._begin()

    def _begin(self) -> None:
        """No labels."""
        count = len(self._heads.names) if self._heads else self.how.heads
        self._reweighting = Reweighting(count, loss=self.loss, temperature=self.temperature)
        self._margins: list[Array] = []
        self.labels_: list[tuple[Array, Array, float]] = []
        """(features of the first answer, of the second one, label), in order."""
        self._known: dict[str, Any] = {}

    @property
    def _made(self) -> Heads:
        if self._heads is None:
            raise HeedfulError("there are no heads yet: call fit, from_scores or load first")
        return self._heads

    def _used(self, used: Used | None) -> Used:
        if used is None:
            return self.diagnose().used
        if used not in get_args(Used):
            raise HeedfulError(f"there is no reward {used!r}; known: {', '.join(get_args(Used))}")
        return used

    def _tunable(self, features: ArrayLike) -> Array:
        """What the single head reads, (n, D); of saved scores those on the scale of the pool."""
        x = matrix(features, self._made.size)
        return x * self._scale if self._made.kind == "scores" else x

    def _labelled(self) -> tuple[Array, Array]:
        """(first - second (n, D), labels (n,)) of what the person said."""
        if not self.labels_:
            return np.zeros((0, self._made.size)), np.zeros(0)
        first, second, labels = zip(*self.labels_, strict=True)
        return self._tunable(np.stack(first)) - self._tunable(np.stack(second)), np.array(labels)

"""The three metrics where the truth is known: answers are points, their worth is linear, labels are Bradley-Terry.

Letters: N pairs, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.quality import noise as quality_noise
from heedful.data.quality import scale as quality_scale
from heedful.data.quality.noise import right_of
from heedful.judges.probes import fit_linear, margins
from heedful.papers.results import Claim, Part, Plot, Series, Table
from heedful.papers.seeds import decided, over_seeds
from heedful.run import Run

Array = NDArray[np.float64]

DIMENSIONS, BETA = 50, 4.0
SIZES = (125, 250, 500, 1000, 2000, 4000)
TEST = 4000
NOISE = 0.25
"""Share of wrong labels in the noisy data set."""
SIMILARITIES = (0.0, 0.5, 0.8, 0.95)
AT = 500
"""Training pairs of the similarity experiment."""
STRENGTH = 1.0


def world(seed: int) -> Array:
    """The direction of worth, (D,), of length 1."""
    direction = np.random.default_rng([seed, 0]).normal(size=DIMENSIONS)
    return direction / np.linalg.norm(direction)


def draw(direction: Array, count: int, seed: Sequence[int], *, similarity: float = 0.0) -> Array:
    """Differences chosen - rejected of `count` labelled pairs, (N, D): answers are standard normal with this
    correlation, and the label follows sigma(BETA * difference of worth)."""
    rng = np.random.default_rng(list(seed))
    first = rng.normal(size=(count, DIMENSIONS))
    second = similarity * first + np.sqrt(1 - similarity**2) * rng.normal(size=first.shape)
    difference = first - second
    wins = rng.random(count) < 1 / (1 + np.exp(-BETA * difference @ direction))
    return np.where(wins[:, None], difference, -difference)


def one_seed(seed: int) -> dict[str, Any]:
    """All experiments of a seed: margins on the test pairs, as accuracies and confidences."""
    direction = world(seed)
    pool, test = draw(direction, SIZES[-1], (seed, 1)), draw(direction, TEST, (seed, 2))
    noisy = quality_noise.flips(len(pool), NOISE, seed + 1000)
    features = np.concatenate([pool, test])
    scored = np.arange(len(pool), len(features))

    def margin(count: int, flipped: Any) -> Array:
        weights = fit_linear(features, np.arange(count), flipped[:count], strength=STRENGTH)
        return margins(features, scored, weights)

    none = np.zeros(len(pool), bool)
    found: dict[str, Any] = {
        "clean": [float(right_of(margin(n, none)).mean()) for n in SIZES],
        "noisy": [float(right_of(margin(n, noisy)).mean()) for n in SIZES],
    }
    at_levels = [margin(len(pool), quality_noise.flips(len(pool), q, seed)) for q in quality_noise.LEVELS]
    found["noise"] = [float(right_of(m).mean()) for m in at_levels]
    found["confidence"] = [float(quality_noise.confidence(m).mean()) for m in at_levels]
    found["ece"] = [quality_noise.reliability(m)["ece"] for m in at_levels]
    found["similarity"] = []
    for i, similarity in enumerate(SIMILARITIES):
        alike = np.concatenate([draw(direction, AT, (seed, 3, i), similarity=similarity), test])
        weights = fit_linear(alike, np.arange(AT), np.zeros(AT, bool), strength=STRENGTH)
        found["similarity"].append(float(right_of(margins(alike, np.arange(AT, len(alike)), weights)).mean()))
    return found


def synthetic_part(seeds: Sequence[int], run: Run) -> Part:
    """Claims M1 to M3 of the protocol, with intervals over seeds."""
    done = [run.once(f"synthetic/seed{seed}.json", lambda seed=seed: one_seed(seed)) for seed in seeds]

    def mean(name: str) -> Array:
        return np.mean([one[name] for one in done], 0)

    slopes = [100 * quality_scale.slope(SIZES, np.array(one["clean"])) for one in done]
    needed = [
        quality_scale.needed(SIZES, np.array(one["clean"]), one["noisy"][-1]) / SIZES[-1] for one in done
    ]
    kept = [float(quality_noise.retention(np.array(one["noise"]))[3]) for one in done]
    claims = [
        _bounded(
            "M1: more pairs give more accuracy (measured: points per doubling, clean labels)",
            "every data set gains; the largest mean gain per doubling is 2.4 to 4.7 points (SafeRLHF, second hand)",
            slopes,
            1e-9,
        ),
        _bounded(
            "M1: with a quarter of the labels wrong, n_eff is below half (measured: the share of the clean set that "
            "teaches what the whole noisy one does)",
            "no number; a gate of our protocol",
            needed,
            0.5,
            above=False,
        ),
        _bounded(
            "M2: with 30% of the labels flipped, at least .85 of the accuracy above chance is kept",
            "accuracy roughly holds with 30 to 40% flipped (second hand)",
            kept,
            0.85,
        ),
        _chance([one["noise"][-1] for one in done]),
        _falling(
            "M2: confidence falls with every step of noise up to 40% (measured: the smallest fall, points)",
            "predictive probability falls towards .5 (second hand)",
            np.array([one["confidence"][:5] for one in done]),
        ),
        _falling(
            "M3: accuracy falls with every step of similarity of the two answers (measured: the smallest fall, points)",
            "dissimilar answers carry more information (second hand)",
            np.array([one["similarity"] for one in done]),
        ),
        _bounded(
            "M3: pairs of unlike answers teach more than pairs of almost the same ones (measured: points, similarity 0 "
            "against .95)",
            "dissimilar answers carry more information (second hand)",
            [100 * (one["similarity"][0] - one["similarity"][-1]) for one in done],
            1e-9,
        ),
    ]
    tables = [
        Table(
            "Synthetic: accuracy by size",
            ["training pairs", *map(str, SIZES)],
            [["clean", *_rounded(mean("clean"))], ["a quarter wrong", *_rounded(mean("noisy"))]],
            f"Linear Bradley-Terry world, {DIMENSIONS} dimensions, beta {BETA:g}, {len(done)} seeds.",
        ),
        Table(
            "Synthetic: label noise",
            ["labels flipped", *(f"{q:.0%}" for q in quality_noise.LEVELS)],
            [[name, *_rounded(mean(name))] for name in ("noise", "confidence", "ece")],
            f"{SIZES[-1]:,} clean pairs, flipped at random; noise is the accuracy.",
        ),
        Table(
            "Synthetic: similarity of the two answers",
            ["correlation", *map(str, SIMILARITIES)],
            [["accuracy", *_rounded(mean("similarity"))]],
            f"{AT} training pairs; tested on pairs of unrelated answers.",
        ),
    ]
    levels = list(quality_noise.LEVELS)
    plots = [
        Plot(
            "Synthetic: accuracy and confidence under label noise",
            "share of training labels flipped",
            "accuracy, confidence",
            [
                Series(name, levels, mean(key).tolist())
                for name, key in (("accuracy", "noise"), ("confidence", "confidence"))
            ],
        )
    ]
    return Part(claims, tables, plots)


def _rounded(values: Array) -> list[float]:
    return [round(float(v), 3) for v in values]


def _bounded(claim: str, paper: str, values: Sequence[float], bound: float, above: bool = True) -> Claim:
    measured, interval = over_seeds(values)
    return Claim(
        claim, paper, measured, interval, decided(measured, interval, bound, above), f"{len(values)} seed(s)"
    )


def _chance(accuracy: Sequence[float]) -> Claim:
    """That the mean over seeds is chance; one seed's direction may be anything."""
    measured, interval = over_seeds(accuracy)
    holds = None if interval is None else interval[0] <= 0.5 <= interval[1]
    return Claim(
        "M2: with half of the labels flipped nothing is learned (measured: accuracy)",
        "by construction; a gate of our protocol",
        measured,
        interval,
        holds,
        f"holds where the interval over {len(accuracy)} seed(s) has .5 in it",
    )


def _falling(claim: str, paper: str, curves: Array) -> Claim:
    """That the mean over seeds falls from each point to the next; curves (S, J). The step that falls least decides."""
    steps = [
        over_seeds((100 * (curves[:, j] - curves[:, j + 1])).tolist()) for j in range(curves.shape[1] - 1)
    ]
    measured, interval = min(steps, key=lambda step: step[0])
    return Claim(
        claim, paper, measured, interval, decided(measured, interval, 1e-9), f"{len(curves)} seed(s)"
    )

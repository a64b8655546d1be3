"""From margins and fingerprints to the numbers of an audit, with their intervals. Nothing here is fitted but length.

Letters: N usable pairs of a file, T tested pairs, C common ones, P prompts, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heedful.data import quality
from heedful.data.quality import compare as quality_compare
from heedful.data.quality import information as quality_information
from heedful.data.quality import noise as quality_noise
from heedful.data.quality import profile as quality_profile
from heedful.data.quality import scale as quality_scale
from heedful.data.quality.compare import by_prompt, interval_of, resampled
from heedful.data.quality.noise import right_of
from heedful.evals.intervals import Interval, share
from heedful.judges.probes import fit_linear, margins
from heedful.recipes.audit_learn import Learned, Split
from heedful.recipes.audit_survey import FAULTY, IDENTICAL, MISMATCH, Survey

if TYPE_CHECKING:
    from heedful.recipes.audit import Config

Array = NDArray[Any]
MANY = 20_000


@dataclass
class FileNumbers:
    """What was found in one file: counts and shares, and Intervals."""

    file: str
    counts: dict[str, int]
    chosen_longer: Interval
    length: Interval
    """Held-out accuracy of the rule that the longer answer wins, or the shorter one, whichever training pairs say."""
    probe: Interval
    """Held-out accuracy of the probe that saw all training pairs."""
    gap: Interval
    """probe - length, on the same prompts."""
    balanced: float
    """The probe's accuracy if the longer answer were chosen half of the time."""
    longer_picked: float
    """How often the probe prefers the longer answer."""
    scale: dict[str, Any]
    noise: dict[str, Any]
    information: dict[str, Any]
    reliability: list[dict[str, Any]]
    """One for each level of noise, over all seeds' margins."""
    spread: dict[str, list[float]]
    """Standard deviations over seeds of the accuracies of scale and noise."""
    similarity: dict[str, float]
    alike: float
    """Share of pairs whose answers have a cosine of quality_information.ALIKE or more."""
    histogram: list[list[float]]
    lengths: dict[str, dict[str, float]]
    languages: dict[str, float]
    confidence: Array = field(repr=False, default_factory=lambda: np.zeros(0))
    """(N,) cross-validated probability of each usable pair's label."""


@dataclass
class Measured:
    """The audit of all files."""

    files: list[FileNumbers]
    common: str
    """What all are tested on; "" for one file without an evaluation file."""
    common_accuracy: list[Interval] = field(default_factory=list)
    common_length: list[Interval] = field(default_factory=list)
    common_pairs: int = 0
    common_prompts: int = 0
    common_curves: list[list[float]] = field(default_factory=list)
    """Accuracy on the common evaluation at each size, file by file."""
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    overlap: list[list[float]] = field(default_factory=list)
    """Share of row i's prompts that are among those of column j; the evaluation file comes last."""


def measure(
    cfg: Config, surveys: Sequence[Survey], splits: Sequence[Split], learned: Sequence[Learned]
) -> Measured:
    """All numbers of the audit."""
    files = [_file(cfg, surveys, i, splits[i], learned[i]) for i in range(len(cfg.files))]
    prompts = [np.unique(one.of("prompt")) for one in surveys]
    overlap = [[float(np.isin(a, b).mean()) for b in prompts] for a in prompts[: len(cfg.files)]]
    measured = Measured(files, "", overlap=overlap)
    if splits[0].common:
        _compare(cfg, surveys, splits, learned, measured)
    return measured


# ---- one file


def _file(cfg: Config, surveys: Sequence[Survey], i: int, rows: Split, learned: Learned) -> FileNumbers:
    one = surveys[i]
    prompts, words = one.of("prompt"), one.of("words")
    tested, ids = len(rows.test), prompts[rows.test]
    at_sizes = np.mean([right_of(s[:, :tested]) for s in learned.scale], 0).T
    # Seeds are averaged after they were right or wrong: the margins' mean would be an ensemble, which is better.
    probe, longer = at_sizes[:, -1], quality.chosen_longer(words[rows.test])
    direction = np.sign(words[rows.test, 0] - words[rows.test, 1])
    picked = np.mean([right_of(s[-1, :tested] * direction) for s in learned.scale], 0)
    lengths = quality.length_features(words, one.of("characters"))
    said = right_of(length_margins(lengths, rows.train, rows.test))
    both = by_prompt(np.column_stack([probe, said]), ids)
    at_levels = np.mean([right_of(s) for s in learned.noise], 0).T
    in_arms = np.mean([right_of(s) for s in learned.information], 0).T
    levels = quality_noise.LEVELS
    similarity = learned.similarity
    shares, edges = np.histogram(similarity, bins=20, range=(min(0.0, float(similarity.min())), 1.0))
    return FileNumbers(
        one.file,
        _counts(cfg, surveys, i, rows),
        rate(by_prompt(quality.chosen_longer(words), prompts), cfg.seed),
        rate(both[:, 1], cfg.seed),
        rate(both[:, 0], cfg.seed),
        interval_of(both, lambda m: float(m[0] - m[1]), seed=cfg.seed),
        quality.balanced(probe, longer),
        float(np.mean(picked[longer != 0.5])) if (longer != 0.5).any() else math.nan,
        quality_scale.scale(learned.sizes, by_prompt(at_sizes, ids), seed=cfg.seed),
        quality_noise.noise(levels, by_prompt(at_levels, ids), seed=cfg.seed),
        quality_information.information(by_prompt(in_arms, ids), seed=cfg.seed),
        [
            quality_noise.reliability(np.concatenate([s[j] for s in learned.noise]))
            for j in range(len(levels))
        ],
        {
            "scale": _spread([right_of(s[:, :tested]).mean(1) for s in learned.scale]),
            "noise": _spread([right_of(s).mean(1) for s in learned.noise]),
        },
        quality.quantiles(similarity),
        float((similarity >= quality_information.ALIKE).mean()),
        [[float(x), float(y)] for x, y in zip((edges[1:] + edges[:-1]) / 2, shares / len(similarity))],
        {
            "chosen": quality.quantiles(words[:, 0]),
            "rejected": quality.quantiles(words[:, 1]),
        },
        quality_profile.profile(one.of("language").tolist()),
        label_confidence(learned.crossed),
    )


def length_margins(features: Array, train: Array, scored: Array) -> Array:
    """What length alone says of the scored rows, (T,): a logistic Bradley-Terry model of `length_features`."""
    weights = fit_linear(features, train, np.zeros(len(train), bool), strength=10.0)
    return margins(features, scored, weights)


def label_confidence(crossed: Array) -> Array:
    """Probabilities of the labels (N,) from cross-validated margins, on the scale that fits the labels best; a probe
    that has learned nothing gives .5 to all."""
    if len(crossed) < 2:
        return np.full(len(crossed), 0.5)
    rows = np.arange(len(crossed))
    slope = float(fit_linear(crossed[:, None], rows, np.zeros(len(rows), bool), strength=1.0)[0])
    return 1 / (1 + np.exp(-max(0.0, slope) * crossed))


def rate(values: Array, seed: int) -> Interval:
    """The mean of per-prompt values between 0 and 1 with its interval: the bootstrap's; of more than MANY prompts,
    where that is slow and the mean as good as normal, the normal one."""
    if len(values) <= MANY:
        return share(values, samples=2000, seed=seed)
    mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def _spread(values: Sequence[Array]) -> list[float]:
    return np.std(values, axis=0, ddof=1).tolist() if len(values) > 1 else [math.nan] * len(values[0])


def _counts(cfg: Config, surveys: Sequence[Survey], i: int, rows: Split) -> dict[str, int]:
    one = surveys[i]
    prompts = one.of("prompt")
    found = quality.repeats(one.of("high"), one.of("low"), one.of("side"))
    counts = {
        "rows": len(one.line),
        "pairs": len(prompts),
        "prompts": len(np.unique(prompts)),
        "duplicates": int((found.same_as >= 0).sum()),
        "contradictory": int(found.contradicted.sum()),
        "identical": int((one.state == IDENTICAL).sum()),
        "mismatched": int((one.state == MISMATCH).sum()),
        "faulty": int((one.state == FAULTY).sum()),
        "near_duplicate_prompts": int(quality.near_duplicates(one.signature).sum()),
        "train": len(rows.train),
        "test": len(rows.test),
    }
    if cfg.eval:
        evaluated = surveys[len(cfg.files)]
        exact = quality.shared(one.signed, evaluated.signed)
        near = quality.near_duplicates_of(one.signature, evaluated.signature)
        counts |= {
            "prompts_in_eval": int(exact.sum()),
            "near_eval": int((near & ~exact).sum()),
            "pairs_in_eval": int(rows.contaminated.sum()),
        }
    return counts


# ---- files compared


def _compare(
    cfg: Config,
    surveys: Sequence[Survey],
    splits: Sequence[Split],
    learned: Sequence[Learned],
    measured: Measured,
) -> None:
    common = splits[0].common
    # A prompt of two files is one prompt.
    ids = np.concatenate([surveys[k].of("prompt")[chosen] for k, chosen in common])
    every = "both" if len(cfg.files) == 2 else f"all {len(cfg.files)}"
    measured.common = cfg.eval or f"held-out prompts of {every} files, as many of each"
    measured.common_pairs, measured.common_prompts = len(ids), len(np.unique(ids))
    lengths = np.concatenate(
        [quality.length_features(surveys[k].of("words"), surveys[k].of("characters"))[c] for k, c in common]
    )
    rights, curves = [], []
    for i, (rows, one) in enumerate(zip(splits, learned)):
        margin = np.stack([s[:, len(rows.test) :] for s in one.scale])
        # A test of right and wrong needs one answer to each pair: that of all seeds together.
        rights.append(right_of(margin[:, -1].mean(0)))
        curves.append(by_prompt(np.mean(right_of(margin), 0).T, ids))
        measured.common_accuracy.append(rate(curves[-1][:, -1], cfg.seed))
        measured.common_curves.append(curves[-1].mean(0).tolist())
        own = quality.length_features(surveys[i].of("words"), surveys[i].of("characters"))
        both = np.concatenate([own, lengths])
        scored = np.arange(len(own), len(both))
        told = by_prompt(right_of(length_margins(both, rows.train, scored)), ids)
        measured.common_length.append(rate(told, cfg.seed))
    # The test is for independent rows, which the pairs of one prompt are not.
    apart = quality.one_of_each_prompt(ids, cfg.seed)
    for a, b in combinations(range(len(rights)), 2):
        table = np.column_stack([curves[a][:, -1], curves[b][:, -1]])
        gap = interval_of(table, lambda m: float(m[0] - m[1]), draws=resampled(table, cfg.seed))
        row: dict[str, Any] = {
            "a": a,
            "b": b,
            "gap": gap,
            **quality_compare.mcnemar(rights[a][apart], rights[b][apart]),
        }
        for first, second, name in ((a, b, "a_to_reach_b"), (b, a, "b_to_reach_a")):
            row[name] = quality_scale.effective_size(
                learned[first].sizes, curves[first], curves[second][:, -1], seed=cfg.seed
            )
        measured.comparisons.append(row)
    corrected = quality_compare.holm([row["p"] for row in measured.comparisons])
    for row, p in zip(measured.comparisons, corrected):
        row["holm"] = p

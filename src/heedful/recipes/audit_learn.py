"""What an audit learns: prompts split, features made once, and the probe fitted again and again, each fit a kept stage.

Letters: N usable pairs of a file, T tested pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heedful.data import quality
from heedful.data.problems import printable
from heedful.data.quality import information as quality_information
from heedful.data.quality import noise as quality_noise
from heedful.data.quality import scale as quality_scale
from heedful.errors import HeedfulError
from heedful.judges import probes
from heedful.judges.answer_features import cache_key, pair_features, weights_of
from heedful.judges.probes import Array, Probe, Rows
from heedful.recipes.audit_survey import Survey, content_of, keep, pairs_of, usable_pairs
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.audit import Config

FOLDS = 5
REPEATED = 50_000
"""Pairs up to which cross-validation is repeated with every seed."""
LEAST_TRAIN, LEAST_TEST = 8, 4
SMALLEST = 32
"""Smallest size of the scale curve."""


@dataclass
class Split:
    """Rows of one file, as numbers of its usable pairs. train and test are of different prompts, and no prompt of train
    is in the evaluation file or held out anywhere. common: (number of a survey, its rows) that all files are tested on.
    """

    train: Rows
    test: Rows
    common: list[tuple[int, Rows]]
    contaminated: NDArray[np.bool_]
    """Which usable pairs (N,) have a prompt of the evaluation file."""


@dataclass
class Learned:
    """Margins of one file's fits. scale[seed] is (sizes, T + C): own test pairs, then the common ones; noise[seed] is
    (levels, T), information[seed] is (arms, T), crossed is (N,), each pair's margin by a probe that has not seen it."""

    sizes: list[int]
    scale: list[Array] = field(default_factory=list)
    noise: list[Array] = field(default_factory=list)
    information: list[Array] = field(default_factory=list)
    crossed: Array = field(default_factory=lambda: np.zeros(0))
    similarity: Array = field(default_factory=lambda: np.zeros(0))
    strength: float | None = None
    about: str = ""


def split(cfg: Config, surveys: Sequence[Survey]) -> list[Split]:
    """How each file is split; the last survey is that of the evaluation file where there is one.

    Raises HeedfulError naming a file that leaves too little to train or test on.
    """
    files = len(cfg.files)
    evaluated = surveys[files].of("prompt") if cfg.eval else np.zeros(0, np.uint64)
    made = []
    for one in surveys[:files]:
        prompts = one.of("prompt")
        held = quality.held_out(prompts, cfg.eval_share, cfg.seed)
        contaminated = quality.shared(prompts, evaluated)
        train = np.flatnonzero(~held & ~contaminated)
        test = _first(np.flatnonzero(held), prompts, cfg.eval_limit, cfg.seed)
        if len(train) < LEAST_TRAIN or len(test) < LEAST_TEST:
            raise HeedfulError(
                printable(
                    f"{one.file}: {len(train)} pairs to train on and {len(test)} to test on are too few (at least "
                    f"{LEAST_TRAIN} and {LEAST_TEST}); {int(one.usable.sum())} pairs can be used"
                    + (f", {int(contaminated.sum())} of them have a prompt of {cfg.eval}" if cfg.eval else "")
                )
            )
        made.append(Split(train, test, [], contaminated))
    if cfg.eval:
        every = _first(np.arange(len(evaluated)), evaluated, cfg.eval_limit, cfg.seed)
        common = [(files, every)]
    elif files > 1:
        common = _equal_shares(surveys, made, cfg.seed)
    else:
        common = []
    for one in made:
        one.common = common
    return made


def _first(rows: Rows, prompts: quality.Keys, limit: int, seed: int) -> Rows:
    """At most `limit` of the rows, whole prompts where possible, in the order of the file."""
    if len(rows) <= limit:
        return rows
    return np.sort(rows[quality.in_prompt_order(prompts[rows], seed)[:limit]])


def _equal_shares(surveys: Sequence[Survey], splits: Sequence[Split], seed: int) -> list[tuple[int, Rows]]:
    """The held-out pairs of the same number of prompts of every file: means are over prompts, so that none decides
    alone."""
    prompts = [surveys[i].of("prompt")[one.test] for i, one in enumerate(splits)]
    limit = min(len(np.unique(keys)) for keys in prompts)
    return [
        (i, one.test[quality.of_some_prompts(keys, limit, seed + 1)])
        for i, (one, keys) in enumerate(zip(splits, prompts, strict=True))
    ]


# ---- features


def features_folder(cfg: Config) -> Path:
    """Where features are kept."""
    if cfg.cache:
        return Path(cfg.cache).expanduser()
    from heedful.smollm2 import cache_folder

    return cache_folder() / "features"


def recipe_of(cfg: Config, surveys: Sequence[Survey]) -> tuple[str, str]:
    """(what a file's features depend on beside its content, what the report says of the probe)."""
    if cfg.probe == "tfidf":
        two = max(int(one.usable.sum()) for one in surveys) <= probes.ONLY_WORDS
        words = "words and pairs of words" if two else "words"
        return cache_key("tfidf", two=two), f"TF-IDF of {words} and a logistic Bradley-Terry model"
    if cfg.probe == "minilm":
        name = cfg.model or "all-MiniLM-L6-v2"
        return cache_key("minilm", cfg.model), f"{name} embeddings and a logistic Bradley-Terry model"
    if cfg.probe == "lm":
        return (
            cache_key("lm", cfg.model, precision=cfg.precision),
            f"mean hidden states of {cfg.model} and a logistic Bradley-Terry model",
        )
    return "tuned", f"{cfg.model}, fine-tuned as a reward model (LoRA, one pass) for every fit"


def _featurise(cfg: Config, spec: str) -> probes.Featurise:
    if cfg.probe in ("tfidf", "tuned"):
        return pair_features("tfidf", two=spec.startswith("words 2") or cfg.probe == "tuned")
    return pair_features(cfg.probe, cfg.model, precision=cfg.precision, device=cfg.device)


def _lazy(make: Callable[[], Any]) -> Callable[[], Any]:
    made: list[Any] = []

    def get() -> Any:
        if not made:
            made.append(make())
        return made[0]

    return get


def learn(
    cfg: Config, surveys: Sequence[Survey], splits: Sequence[Split], columns: Mapping[str, str], run: Run
) -> list[Learned]:
    """Every experiment on every file; features are made when the first fit that is missing needs them."""
    spec, about = recipe_of(cfg, surveys)
    folder = features_folder(cfg)
    weights = _lazy(lambda: weights_of(cfg.probe, cfg.model))
    featurise = _lazy(lambda: _featurise(cfg, spec))

    @cache
    def parts(i: int) -> list[Path]:
        one = surveys[i]
        key = f"{spec}{weights()} {content_of(one.file)} {sorted(columns.items())} {int(one.usable.sum())}"
        return probes.cached_parts(
            folder,
            key,
            int(one.usable.sum()),
            lambda: usable_pairs(one, columns),
            lambda pairs: featurise()(pairs),
            size=probes.PART if cfg.probe in ("tfidf", "tuned") else 500,
            tick=_tell(cfg, f"features of {one.file}"),
        )

    return [
        _learn_file(i, cfg, surveys, splits[i], columns, run, parts, about) for i in range(len(cfg.files))
    ]


def _tell(cfg: Config, what: str) -> Callable[[int], None] | None:
    if cfg.quiet:
        return None
    return lambda count: print(f"{printable(what)}: {count:,} pairs", file=sys.stderr, flush=True)


# ---- one file


def _learn_file(
    i: int,
    cfg: Config,
    surveys: Sequence[Survey],
    rows: Split,
    columns: Mapping[str, str],
    run: Run,
    parts: Callable[[int], list[Path]],
    about: str,
) -> Learned:
    one = surveys[i]
    prompts, words = one.of("prompt"), one.of("words")
    count = len(prompts)
    folder = f"learn/{i}"

    def mask(number: int, chosen: Rows) -> Array:
        made = np.zeros(int(surveys[number].usable.sum()), bool)
        made[chosen] = True
        return made

    def place() -> tuple[Any, Array]:
        everything = np.ones(count, bool)
        space = probes.learn_space(parts(i), mask(i, rows.train))
        if not space.width:
            raise HeedfulError(
                printable(f"{one.file}: no word is in two training answers, so words teach nothing; ")
                + "use --probe minilm or lm"
            )
        sources = [(parts(i), everything), *((parts(k), mask(k, chosen)) for k, chosen in rows.common)]
        return probes.place(sources, space)

    placed = _lazy(place)
    similarity = keep(run, f"{folder}/similarity.safetensors", lambda: {"cosine": placed()[1][:count]})[
        "cosine"
    ]
    strength: float | None = None
    if cfg.probe != "tuned":
        fold = quality.folds(prompts[rows.train], 3, cfg.seed)
        shuffled = np.argsort(quality.mixed(prompts[rows.train], cfg.seed, 4), kind="stable")
        strength = run.once(
            f"{folder}/strength.json",
            lambda: probes.pick_strength(placed()[0], rows.train[shuffled], fold[shuffled]),
        )
    probe = _lazy(lambda: _probe(cfg, surveys, i, rows, columns, run, placed, strength))

    def fitted(name: str, train: Rows, scored: Rows, flipped: Array | None = None) -> Array:
        flips = np.zeros(len(train), bool) if flipped is None else flipped
        stage = f"{folder}/{name}"
        made = keep(
            run,
            f"{stage}.safetensors",
            lambda: {"margins": np.asarray(probe()(stage, train, flips, scored), np.float32)},
        )
        return made["margins"].astype(float)

    outside = np.arange(count, count + sum(len(chosen) for _, chosen in rows.common))
    tested = np.r_[rows.test, outside]
    sizes = quality_scale.sizes(len(rows.train), cfg.points, SMALLEST)
    learned = Learned(sizes, similarity=similarity.astype(float), strength=strength, about=about)
    # A convex problem does not depend on the seed once every training pair is in: it is solved once.
    same = cfg.probe != "tuned"
    arm = min(len(rows.train), cfg.arm_limit)
    for seed in range(cfg.seeds):
        order = rows.train[quality.in_prompt_order(prompts[rows.train], cfg.seed + seed)]
        scale = [
            fitted(f"seed{0 if same and n == sizes[-1] else seed}/scale-{n}", np.sort(order[:n]), tested)
            for n in sizes
        ]
        learned.scale.append(np.stack(scale))
        some = np.sort(order[:arm])
        noise = [
            scale[-1][: len(rows.test)]
            if same and q == 0 and arm == len(rows.train)
            else fitted(
                f"seed{seed}/noise-{round(100 * q)}",
                some,
                rows.test,
                quality_noise.flips(len(some), q, cfg.seed + seed),
            )
            for q in quality_noise.LEVELS
        ]
        learned.noise.append(np.stack(noise))
        # Four fifths of the prompts, others each time: else the two ends would be the same pairs for every seed.
        most = np.sort(order[: max(2, int(0.8 * arm))])
        halves = quality_information.parts(similarity[most], words[most], cfg.seed + seed)
        arms = [
            fitted(f"seed{seed}/{name.replace(', ', '-').replace(' ', '-')}", most[inner], rows.test)
            for name, inner in halves.items()
        ]
        learned.information.append(np.stack(arms))
        if not cfg.quiet:
            print(f"{printable(one.file)}: seed {seed + 1} of {cfg.seeds} done", file=sys.stderr, flush=True)
    learned.crossed = _cross(cfg, prompts, fitted)
    return learned


def _probe(
    cfg: Config,
    surveys: Sequence[Survey],
    i: int,
    rows: Split,
    columns: Mapping[str, str],
    run: Run,
    placed: Callable[[], tuple[Any, Array]],
    strength: float | None,
) -> Probe:
    if cfg.probe != "tuned":
        return probes.linear_probe(placed()[0], strength=strength or 1.0)
    from heedful.judges.probe_models import Tuning, tuned_probe

    pairs = list(usable_pairs(surveys[i], columns))
    for k, chosen in rows.common:
        wanted = np.zeros(len(surveys[k].line), bool)
        wanted[np.flatnonzero(surveys[k].usable)[chosen]] = True
        pairs += [pair for _, pair in pairs_of(surveys[k], columns, wanted)]
    how = Tuning(cfg.model, device=cfg.device, precision=cfg.precision, quiet=cfg.quiet)
    return tuned_probe(pairs, how, run)


def _cross(cfg: Config, prompts: quality.Keys, fitted: Callable[..., Array]) -> Array:
    """Each pair's margin by probes fitted without its prompt, the mean over repetitions with other folds."""
    count = len(prompts)
    repetitions = cfg.seeds if cfg.probe != "tuned" and count <= REPEATED else 1
    total = np.zeros(count)
    for repetition in range(repetitions):
        fold = quality.folds(prompts, FOLDS, cfg.seed + repetition)
        for k in range(FOLDS):
            outside = np.flatnonzero(fold == k)
            inside = np.flatnonzero(fold != k)
            if len(outside) and len(inside) >= 2:
                total[outside] += fitted(f"seed{repetition}/fold-{k}", inside, outside)
    return total / repetitions

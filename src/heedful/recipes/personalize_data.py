"""What `heedful personalize fit` learns from: pairs to train heads on, and a pool of others to ask a person about.

Prompts are split before anything else: the pool has none that the heads were trained on, and neither has one of the
evaluation file. Every file is read from disk, row by row; what is held in memory are features.

Letters: N pairs of a file, P pairs of the pool, D features, K heads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.atomic import write_file
from heedful.data import quality
from heedful.data.problems import printable
from heedful.data.rows import Rows, open_rows, parse_columns, prompt_key
from heedful.errors import HeedfulError
from heedful.judges import probes
from heedful.judges.answer_features import JSON, AnswerFeatures, How, cache_key, pair_features, weights_of
from heedful.judges.probes import Array, Pair
from heedful.recipes.audit_learn import features_folder
from heedful.recipes.audit_survey import content_of, keep
from heedful.recipes.personalize_pairs import oriented, pair_id
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.personalize import Config
    from heedful.recipes.personalize_scores import SavedScores

LEAST_TRAIN, LEAST_POOL = 8, 2
TRAINED = "trained.safetensors"


@dataclass
class Source:
    """A file of pairs. keys (N,): hashes of the prompts. train, pool: masks (N,) of what the rows are for."""

    file: str
    rows: Rows
    keys: quality.Keys
    train: Array = field(default_factory=lambda: np.zeros(0, bool))
    pool: Array = field(default_factory=lambda: np.zeros(0, bool))

    def pairs(self, mask: Array | None = None) -> Iterator[Pair]:
        """(prompt, chosen, rejected) of the masked rows, or of all, in order."""
        numbers = range(len(self.rows)) if mask is None else np.flatnonzero(mask).tolist()
        for i in numbers:
            row = self.rows[i]
            yield row["prompt"], row["chosen"], row["rejected"]


@dataclass
class Data:
    """All files of a fit, the evaluation file (whose rows are for nothing else), and counts for the report."""

    sources: list[Source]
    evaluation: Source | None
    facts: dict[str, Any]

    @property
    def train(self) -> int:
        """Pairs to train on."""
        return sum(int(one.train.sum()) for one in self.sources)


def load(cfg: Config, run: Run) -> Data:
    """Read and check every file and split it by prompt.

    Raises HeedfulError listing everything wrong in a file, and when too little is left to train on or to ask about.
    """
    columns = parse_columns(cfg.columns)

    def read(file: str) -> Source:
        rows = open_rows(
            file, "preference", columns=columns, cache=run.path("cache"), drop_faulty=cfg.drop_faulty_rows
        )
        keys = [int.from_bytes(prompt_key(row["prompt"])[:8], "little") for row in rows]
        return Source(file, rows, np.array(keys, np.uint64))

    sources = [read(file) for file in cfg.files]
    evaluation = read(cfg.eval) if cfg.eval else None
    facts: dict[str, Any] = {"pairs": sum(len(one.rows) for one in sources)}
    for one in sources:
        if one.rows.report.faulty_rows:
            facts[f"{Path(one.file).name}: faulty rows left out"] = one.rows.report.faulty_rows
    keys = np.concatenate([one.keys for one in sources])
    outside = np.zeros(len(keys), bool)
    if evaluation is not None:
        outside = quality.shared(keys, evaluation.keys)
        facts["left out, their prompt being in the evaluation file"] = int(outside.sum())
    # Saved scores need no training, so that every pair can be asked about.
    held = np.ones(len(keys), bool) if cfg.scores else _held_out(keys, cfg.pool_share, cfg.seed)
    train, asked = ~held & ~outside, np.flatnonzero(held & ~outside)
    asked = _distinct(sources, asked[quality.in_prompt_order(keys[asked], cfg.seed)], cfg.pool_limit)
    at = 0
    for one in sources:
        stop = at + len(one.rows)
        one.train, one.pool = train[at:stop], np.isin(np.arange(at, stop), asked)
        at = stop
    data = Data(sources, evaluation, facts)
    if len(asked) < LEAST_POOL or (not cfg.scores and data.train < LEAST_TRAIN):
        raise HeedfulError(
            printable(
                f"{', '.join(cfg.files)}: {data.train} pairs to train on and {len(asked)} to ask about are too few (at "
                f"least {LEAST_TRAIN} and {LEAST_POOL}); there are {facts['pairs']} pairs of "
                f"{len(np.unique(keys))} prompts, {cfg.pool_share:.0%} of the prompts go to the pool"
            )
        )
    facts |= {"training pairs": data.train, "pairs to ask about": len(asked)}
    unused = len(keys) - int(outside.sum()) - data.train - len(asked)
    if unused:
        facts["held out and not asked about: repeats, or more than --pool-limit"] = unused
    return data


def _held_out(keys: quality.Keys, share: float, seed: int) -> Array:
    """Which rows have one of the prompts that are held out: this share of them, at least one, never all."""
    ranks = quality.mixed(keys, seed, 1)
    prompts = np.unique(ranks)
    count = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    return ranks <= prompts[count - 1] if count else np.zeros(len(keys), bool)


def _distinct(sources: list[Source], numbers: Array, limit: int) -> Array:
    """The first `limit` of these rows, counted through all files, without pairs that were there before."""
    starts = np.cumsum([0, *(len(one.rows) for one in sources)])
    seen: set[str] = set()
    kept = []
    for number in numbers.tolist():
        if len(kept) == limit:
            break
        i = int(np.searchsorted(starts, number, "right")) - 1
        row = sources[i].rows[number - int(starts[i])]
        id = pair_id(row["prompt"], row["chosen"], row["rejected"])
        if id not in seen:
            seen.add(id)
            kept.append(number)
    return np.array(kept, np.int64)


def annotators(data: Data, column: str) -> Array | None:
    """Who labelled each training pair, (N,) texts; None without a column.

    Raises HeedfulError with the place of a row that does not say, and when there is one annotator only.
    """
    if not column:
        return None
    found = []
    for one in data.sources:
        for i in np.flatnonzero(one.train).tolist():
            value = one.rows[i].get(column)
            if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
                raise HeedfulError(
                    f"{one.rows.where(i)}: {printable(column)}: a name or a number is needed, not {value!r:.40}"
                )
            found.append(str(value))
    if len(set(found)) < 2:
        raise HeedfulError(f"--annotators {column}: all training pairs have {found[0]!r}; two are needed")
    return np.array(found)


def saved_scores(cfg: Config, data: Data) -> SavedScores | None:
    """The scores in --scores, those of every pair of the pool among them; None without the option.

    Raises HeedfulError with the line that is wrong, or the answer that has none.
    """
    from heedful.recipes.personalize_scores import read_scores

    if not cfg.scores:
        return None
    scores = read_scores(cfg.scores)
    scores.place_files([(one.file, len(one.rows)) for one in data.sources])
    for one in data.sources:
        scores.of(one.rows, np.flatnonzero(one.pool).tolist(), one.file)
    return scores


# ---- the pool


def pool_rows(data: Data) -> list[dict[str, Any]]:
    """The pairs to ask about, as pool.jsonl has them: nothing in a row says which answer was chosen."""
    rows = []
    for one in data.sources:
        for i in np.flatnonzero(one.pool).tolist():
            row = one.rows[i]
            prompt, answers = row["prompt"], (row["chosen"], row["rejected"])
            first, second = oriented(prompt, *answers)
            source = one.rows.where(i)
            rows.append(
                {"id": pair_id(prompt, *answers), "prompt": prompt, "first": first, "second": second}
                | {"source": source}
            )
    return rows


def population(data: Data) -> Array:
    """What the files say of the pool, (P,): 1 where the first answer was chosen, else 0."""
    said = []
    for one in data.sources:
        for prompt, chosen, rejected in one.pairs(one.pool):
            said.append(float(oriented(prompt, chosen, rejected)[0] == chosen))
    return np.array(said)


def keep_trained(data: Data, run: Run) -> None:
    """Remember the prompts that were trained on, so that a later evaluation can leave them out."""
    keys = [one.keys[one.train] for one in data.sources]
    keep(run, TRAINED, lambda: {"prompts": np.unique(np.concatenate(keys))})


# ---- features


@dataclass
class Featured:
    """Features of a fit: of the training pairs (chosen, rejected), (N, D), made when asked for, and of the pool."""

    features: AnswerFeatures
    train: Callable[[], tuple[Array, Array]]
    first: Array
    second: Array
    names: list[str] | None = None


def featured(cfg: Config, data: Data, run: Run) -> Featured:
    """Learn the features, and make those of the pool; each is a stage that is read back later."""
    parts = {one.file: _parts(cfg, one) for one in data.sources}
    how = How(cfg.features, cfg.model, cfg.style, cfg.dimensions, cfg.precision)
    if not run.path(JSON).exists():
        # learned from the first file's parts alone would be another thing: all files count
        files = [path for one in data.sources for path in parts[one.file]()]
        mask = np.concatenate([one.train for one in data.sources])
        learned = AnswerFeatures.learn(
            how,
            files,
            mask,
            [pair for one in data.sources for pair in one.pairs(one.train)] if cfg.style else [],
            seed=run.seed_for("features"),
            device=cfg.device,
        )
        learned.save(run.folder)
    features = AnswerFeatures.load(run.folder, device=cfg.device)

    def placed(name: str) -> tuple[Array, Array]:
        sides = [
            features.placed(parts[one.file](), getattr(one, name), one.pairs(getattr(one, name)))
            for one in data.sources
            if getattr(one, name).any()
        ]
        return np.concatenate([s[0] for s in sides]), np.concatenate([s[1] for s in sides])

    def pool() -> dict[str, Array]:
        chosen, rejected = placed("pool")
        first = population(data)[:, None] == 1
        return {"first": np.where(first, chosen, rejected), "second": np.where(first, rejected, chosen)}

    asked = keep(run, "pool.safetensors", pool)
    return Featured(features, lambda: placed("train"), asked["first"], asked["second"])


def from_scores(cfg: Config, data: Data, scores: SavedScores, run: Run) -> Featured:
    """Saved scores as features: those of the pool."""

    def pool() -> dict[str, Array]:
        sides = [scores.of(one.rows, np.flatnonzero(one.pool).tolist(), one.file) for one in data.sources]
        chosen, rejected = (np.concatenate([side[i] for side in sides]) for i in (0, 1))
        first = population(data)[:, None] == 1
        return {"first": np.where(first, chosen, rejected), "second": np.where(first, rejected, chosen)}

    asked = keep(run, "pool.safetensors", pool)
    features = AnswerFeatures(
        How("scores", style=False), {"scale": np.ones(asked["first"].shape[1], np.float32)}
    )
    if not run.path(JSON).exists():
        features.save(run.folder)
    empty = np.zeros((0, features.size), np.float32)
    return Featured(features, lambda: (empty, empty), asked["first"], asked["second"], scores.names)


def evaluation_features(cfg: Config, one: Source, features: AnswerFeatures) -> dict[str, Array]:
    """Features of the evaluation file's pairs, chosen and rejected (N, D), and the model's own scores where the trunk
    is a reward model: own_chosen and own_rejected (N,)."""
    parts, every = _parts(cfg, one)(), np.ones(len(one.rows), bool)
    chosen, rejected = features.placed(parts, every, one.pairs())
    made = {"chosen": chosen, "rejected": rejected}
    if cfg.features == "reward":
        for side in ("chosen", "rejected"):
            own = [probes.read_part(part)[f"{side}_score"] for part in parts]
            made[f"own_{side}"] = np.concatenate(own)
    return made


def _parts(cfg: Config, one: Source) -> Callable[[], list[Path]]:
    """The cached raw features of a file, made when they are first asked for; shared with `heedful audit`."""
    made: list[list[Path]] = []

    def parts() -> list[Path]:
        if not made:
            key = cache_key(cfg.features, cfg.model, precision=cfg.precision)
            key += weights_of(cfg.features, cfg.model)
            columns: Mapping[str, str] = parse_columns(cfg.columns)
            lazy: list[probes.Featurise] = []

            def featurise(pairs: Any) -> dict[str, Array]:
                if not lazy:
                    made = pair_features(cfg.features, cfg.model, precision=cfg.precision, device=cfg.device)
                    lazy.append(made)
                return lazy[0](pairs)

            made.append(
                probes.cached_parts(
                    features_folder(cfg),  # type: ignore[arg-type]
                    f"{key} {content_of(one.file)} {sorted(columns.items())} {len(one.rows)}",
                    len(one.rows),
                    one.pairs,
                    featurise,
                    size=probes.PART if cfg.features == "tfidf" else 500,
                    tick=None if cfg.quiet else _tell(one.file),
                )
            )
        return made[0]

    return parts


def _tell(file: str) -> Callable[[int], None]:
    return lambda count: print(printable(f"features of {file}: {count:,} pairs"), file=sys.stderr, flush=True)


def write_json(run: Run, name: str, value: Any) -> None:
    """A JSON file of the run, written anew."""
    import json

    write_file(run.path(name), (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())

"""Many target distributions, a few labelled pairs of each: the test of the paper preset.

For every distribution of the evaluation file (a `subset`, as in RewardBench) some pairs are drawn without replacement,
the heads are adapted to them, and all its other pairs are scored; so often, with other draws. Nothing of the
evaluation file has been learned from: its prompts are in neither the training pairs nor the pool.

Letters: N pairs of a distribution, S labelled ones, R draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.config import content_hash
from heedful.data.problems import printable, short
from heedful.errors import HeedfulError
from heedful.evals.intervals import bootstrap, paired_bootstrap
from heedful.judges.probes import Array
from heedful.judges.reweighting_diagnosis import ARMS

if TYPE_CHECKING:
    from heedful.judges.personal import PersonalReward
    from heedful.recipes.personalize import Config
    from heedful.recipes.personalize_data import Data, Featured, Source
    from heedful.run import Run

CHOSEN, OWN = "chosen by diagnosis", "the model's own head"
ARM_NAMES = {
    "uniform": "uniform mean of the heads",
    "single": "single head",
    "best_head": "best head on the labels",
    "fine_tuned": "single head, fine-tuned",
    "reweighting": "reweighted heads",
    CHOSEN: "what the diagnosis chose",
    OWN: "the model's own head",
}
REFERENCES = ("uniform", "single", "best_head", "fine_tuned")


def checked(cfg: Config, data: Data) -> dict[str, Array]:
    """The row numbers of each distribution; none without an evaluation file.

    Raises HeedfulError when no distribution has more pairs than are labelled, and for a row that names none.
    """
    if data.evaluation is None:
        return {}
    groups = distributions(data.evaluation, cfg.subset)
    if not any(len(rows) > cfg.shots for rows in groups.values()):
        raise HeedfulError(
            printable(
                f"{cfg.eval}: no {cfg.subset!r} has more than {cfg.shots} pairs, so nothing would be left to score; "
                "lower --shots"
            )
        )
    return groups


def tested(
    cfg: Config,
    data: Data,
    made: Featured,
    groups: Mapping[str, Array],
    run: Run,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Adapt to every distribution and score the rest; a distribution is a stage. Returns all results, see `summary`.

    groups: of `checked`. measured: what the heads are before any label.
    """
    from heedful.judges.personal import PersonalReward
    from heedful.recipes.personalize_data import evaluation_features
    from heedful.recipes.personalize_store import HEADS

    assert data.evaluation is not None
    kept = {name: rows for name, rows in groups.items() if len(rows) > cfg.shots}
    features: list[dict[str, Array]] = []
    found = []
    for name, rows in kept.items():

        def make(name: str = name, rows: Array = rows) -> dict[str, Any]:
            if not features:
                features.append(evaluation_features(cfg, data.evaluation, made.features))  # type: ignore[arg-type]
            some = {key: array[rows] for key, array in features[0].items()}
            reward = PersonalReward.load(run.path(HEADS))
            seed = run.seed_for("targets", name)
            return {"subset": name, **few_shot(reward, some, cfg.shots, cfg.draws, seed)}

        found.append(run.once(f"targets/{content_hash(name)[:16]}.json", make))
        if not cfg.quiet:
            print(
                printable(f"{short(name)}: {len(rows):,} pairs, {cfg.draws} draws"),
                file=sys.stderr,
                flush=True,
            )
    few = {name: len(rows) for name, rows in groups.items() if name not in kept}
    return summary(found, few, run.seed, both_ways=measured["both_ways"])


def distributions(one: Source, column: str) -> dict[str, Array]:
    """The row numbers of each distribution, in order of first appearance. Raises HeedfulError for a row without one."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(one.rows):
        name = row.get(column)
        if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
            told = "is missing" if name is None else f"must be a name, not {name!r:.40}"
            raise HeedfulError(
                printable(f"{one.rows.where(i)}: {column}: {told}; --subset says which column it is")
            )
        found.setdefault(str(name), []).append(i)
    return {name: np.array(rows) for name, rows in found.items()}


def few_shot(
    reward: PersonalReward, features: Mapping[str, Array], shots: int, draws: int, seed: int
) -> dict[str, Any]:
    """Accuracy of every arm on the pairs that were not drawn, by draw: {arm: [R numbers]}, ties counted half.

    features: chosen and rejected, (N, D); own_chosen and own_rejected, (N,), where the trunk has a score of its own.
    `used` is what the diagnosis chose in each draw, `effective_heads` what the labels left.
    """
    rng = np.random.default_rng(seed)
    count = len(features["chosen"])
    arms: dict[str, list[float]] = {arm: [] for arm in (*ARMS, CHOSEN)}
    if "own_chosen" in features:
        arms[OWN] = []
    used, effective = [], []
    for _ in range(draws):
        order = rng.permutation(count)
        drawn, rest = np.sort(order[:shots]), np.sort(order[shots:])
        chosen, rejected = features["chosen"][rest], features["rejected"][rest]
        reward.adapt(features["chosen"][drawn], features["rejected"][drawn], np.ones(shots))
        for arm in ARMS:
            arms[arm].append(_right(reward.predict(chosen, arm), reward.predict(rejected, arm)))
        used.append(reward.diagnose().used)
        arms[CHOSEN].append(arms[used[-1]][-1])
        effective.append(reward.effective_heads_)
        if OWN in arms:
            arms[OWN].append(_right(features["own_chosen"][rest], features["own_rejected"][rest]))
        reward.undo(shots)
    return {"pairs": count, "accuracy": arms, "used": used, "effective_heads": effective}


def _right(chosen: Array, rejected: Array) -> float:
    return float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected)))


def summary(
    found: Sequence[dict[str, Any]], few: Mapping[str, int], seed: int, *, both_ways: bool = False
) -> dict[str, Any]:
    """Means and standard deviations over draws by distribution, and over all of them with intervals.

    The distribution is the unit: every one counts the same, and intervals are a bootstrap over distributions. gains:
    reweighting less each reference. both_ways: the heads cancel, so that nothing is said of their uniform mean.
    """
    arms = [arm for arm in found[0]["accuracy"] if not (both_ways and arm == "uniform")]
    rows = []
    for one in found:
        accuracy = {arm: np.array(one["accuracy"][arm]) for arm in arms}
        rows.append(
            {
                "subset": one["subset"],
                "pairs": one["pairs"],
                "mean": {arm: float(a.mean()) for arm, a in accuracy.items()},
                "sd": {arm: float(a.std(ddof=1)) if len(a) > 1 else None for arm, a in accuracy.items()},
                "used": {arm: one["used"].count(arm) for arm in sorted(set(one["used"]))},
                "effective_heads": float(np.mean(one["effective_heads"])),
            }
        )
    means = {arm: [row["mean"][arm] for row in rows] for arm in arms}
    return {
        "rows": rows,
        "overall": {arm: _interval(lambda arm=arm: bootstrap(means[arm], seed=seed)) for arm in arms},
        "gains": {
            arm: _interval(lambda arm=arm: paired_bootstrap(means[arm], means["reweighting"], seed=seed))
            for arm in (*REFERENCES, OWN)
            if arm in arms
        },
        "left_out": dict(few),
    }


def _interval(make: Callable[[], Any]) -> dict[str, Any]:
    found = make()
    bounds = found.bounds() or [None, None]
    return {"estimate": found.estimate, "low": bounds[0], "high": bounds[1]}

"""The driver of `heedful prefer` (Algorithm 1 of Tajwar et al. 2024): rounds of sample, judge, select, learn.

A round takes `prompts_per_round` prompts (all of them at 0) with n completions of each: from the policy, or for the
offline share from --data. It learns from them for `epochs` passes in steps of `batch_size` rows. So
prompts_per_round * n is the paper's B, n its C, epochs its T and batch_size its M. Rounds learn as one long stage does:
optimiser and schedule go on.

What a later round needs of an earlier one is in `round<r>/round.json`, so a resumed run passes over finished rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from heedful.errors import HeedfulError
from heedful.evals import heldout
from heedful.evals.texts import words
from heedful.feedback import Judge
from heedful.fit import Chain, fit
from heedful.policies import objectives
from heedful.policies.actor_critic import value_head
from heedful.policies.language import LanguagePolicy
from heedful.processes import gather
from heedful.recipes import prefer_select
from heedful.recipes.plan import beta_of
from heedful.recipes.prefer_data import Data
from heedful.recipes.prefer_select import Record
from heedful.recipes.settings import fit_config, sampling
from heedful.run import Run, read_metrics
from heedful.stage import finished

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config

LOSS_OPTIONS = (
    *("label_smoothing", "gamma", "clip", "tau", "value_coef", "value_clip"),
    *("negative", "negative_form", "negative_weight", "negative_floor"),
)
SHOWN = (
    "score",
    "kl",
    "kl_coef",
    "tie_rate",
    "samples_used",
    "reward_queries",
    "updates_per_refresh",
    "reuse",
)


def learn(
    cfg: Config, policy: LanguagePolicy, data: Data, judge: Judge | None, gold: Judge | None, run: Run
) -> dict[str, int]:
    """Learn from --data as it is, or in rounds; returns what was selected and left out, counted over all rounds.

    data: rows that the model's context holds, see `prefer_data.check_lengths`.
    Raises HeedfulError when the judge of a round gives no usable difference.
    """
    critic = value_head(policy) if cfg.method == "ppo" and cfg.value_coef else None
    if not cfg.rounds:
        shown = "" if cfg.quiet else "round0/reference"
        rows = objectives.pair_rows(policy, data.pairs, cfg.method, run, shown=shown, checked=True)
        _fit(cfg, policy, critic, rows, 0, {}, run)
        return {}
    counts: dict[str, int] = {}
    record: Record = {}
    clock, done = _clock(run), _finished(cfg, run)
    for r in range(cfg.rounds):
        rows: Sequence[Any] = []
        if r < done:
            record = run.once(f"round{r}/round.json", lambda r=r: _missing(r, run))
        else:
            rows, made = prefer_select.round_rows(cfg, policy, critic, data, judge, r, record, run)
            record = run.once(f"round{r}/round.json", lambda made=made: made)
        if r >= done - 1:  # weights of earlier rounds went into those of the last finished one
            _fit(cfg, policy, critic, rows, r, record, run)
        for name, count in record["counts"].items():
            counts[name] = counts.get(name, 0) + int(count)
        shown = {name: record[name] for name in SHOWN if record[name] is not None}
        run.log(r + 1, {**shown, "seconds": round(clock(), 3)}, stage="driver")
        if cfg.eval_rounds and (r + 1) % cfg.eval_rounds == 0:
            _measure(cfg, policy, data, judge, gold, r, run)
            clock = _clock(run)  # measuring does not count as learning
    return counts


def _finished(cfg: Config, run: Run) -> int:
    """How many rounds are trained: always the first ones."""
    done = 0
    while done < cfg.rounds and finished(f"round{done}", run):
        done += 1
    return gather(done, run.world)[0]


def _missing(r: int, run: Run) -> Record:
    raise HeedfulError(
        f"{run.path(f'round{r}')} is trained and has no round.json: it was made by another version of heedful, "
        "or the file was removed; start anew in another run folder"
    )


def _clock(run: Run) -> Callable[[], float]:
    """Seconds of learning so far, with those of earlier starts."""
    earlier = [row["seconds"] for row in read_metrics(run.folder) if row.get("stage") == "driver"]
    spent, began = max(earlier, default=0.0), time.monotonic()
    return lambda: spent + time.monotonic() - began


def _fit(
    cfg: Config,
    policy: LanguagePolicy,
    critic: nn.Linear | None,
    rows: Sequence[Any],
    r: int,
    record: Record,
    run: Run,
) -> None:
    told = {name: record[name] for name in ("tie_rate", "reward_queries", "samples_used") if record.get(name)}
    module = (
        nn.ModuleDict({"policy": policy.module, "value": critic}) if critic is not None else policy.module
    )
    options = {**{name: getattr(cfg, name) for name in LOSS_OPTIONS}, "beta": beta_of(cfg)}
    fit(
        f"round{r}",
        objectives.objective(policy, cfg.method, critic=critic, told=told, **options),
        module,
        rows,
        fit_config(cfg, policy.precision),
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=objectives.row_weight(cfg.method, negative=cfg.negative),
        chain=Chain(f"round{r - 1}" if r else "", r, cfg.rounds) if cfg.rounds else None,
    )


def _measure(
    cfg: Config, policy: LanguagePolicy, data: Data, judge: Judge | None, gold: Judge | None, r: int, run: Run
) -> None:
    """Answer the held-out prompts after round r; what comes of it goes to metrics.jsonl, stage "held-out"."""
    # after the last round these are the answers that the report compares with
    name = "after" if r + 1 == cfg.rounds else f"eval/round{r}"
    ask: dict[str, Any] = {"n": cfg.eval_n, "quiet": cfg.quiet, **sampling(cfg)}
    answers = heldout.answer(policy, data.eval_prompts, judge, name, run, **ask)
    told = {"words": float(np.mean([len(words(text)) for texts in answers.texts for text in texts]))}
    if answers.scores is not None:
        told["judge_score"] = float(np.nanmean(answers.scores))
    if gold is not None:
        told["gold_score"] = float(np.nanmean(heldout.gold_scores(gold, answers, name, run)))
    run.log(r + 1, told, stage="held-out")

"""What a round of `heedful prefer` learns from: samples and pairs in turn, judged, selected, made into rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from heedful.errors import NothingToLearn
from heedful.evals.intervals import tie_rate
from heedful.feedback import (
    Feedback,
    Judge,
    Samples,
    Selection,
    advantages,
    best,
    ema_baseline,
    pairs,
    ranked,
    reweight,
)
from heedful.policies import objectives
from heedful.policies.actor_critic import next_kl, ppo_targets, token_values
from heedful.policies.language import Completion, LanguagePolicy
from heedful.policies.stages import judge_once, plain_sampling, sample_and_judge
from heedful.recipes.prefer_data import Data
from heedful.recipes.prefer_reference import referring
from heedful.recipes.settings import sampling
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config

Record = dict[str, Any]
"""round.json. Of the round: counts (of the selection), score (mean, null where nobody scored), tie_rate, kl (mean
log-ratio to the start model of its own samples, nats per completion; null where they were drawn at another temperature
than 1 or with tokens cut off), kl_coef (used), updates_per_refresh (steps until the next samples: how stale the last of
them are), reuse (passes). Of all rounds so far: samples_used, reward_queries, score_sum, scored, ema."""
Judged = tuple[Samples, Feedback]


def round_rows(
    cfg: Config,
    policy: LanguagePolicy,
    critic: nn.Linear | None,
    data: Data,
    judge: Judge | None,
    r: int,
    before: Record,
    run: Run,
) -> tuple[Sequence[dict[str, Any]], Record]:
    """Training rows of round r and its record; before: the record of the round before, empty for the first.

    Raises NothingToLearn when the judge gives no usable difference.
    """
    reference = referring(cfg, policy, r, run)
    method = objectives.check_method(cfg.method)
    drawn, taken = _sampled(cfg, policy, data, judge, r, run), _offline(cfg, data, judge, r, run)
    coefficient = _coefficient(cfg, before)
    parts = [part for part in (drawn, taken) if isinstance(part, tuple)]
    scored = [(s, _less_kl(cfg, policy, s, f, coefficient, run) if critic is None else f) for s, f in parts]
    picked = [_select(cfg, samples, feedback, before) for samples, feedback in scored]
    rows = list(chain.from_iterable(selection.rows for selection in picked))
    if isinstance(taken, list):
        rows += taken
    counts = _summed([selection.counts for selection in picked])
    if not rows:
        raise NothingToLearn(f"round {r}: the judge gave no usable difference ({counts}); use another judge")
    _keep(rows, f"round{r}/rows.jsonl", run)
    shown = "" if cfg.quiet else f"round{r}/reference"
    if method.feedback == "pairs":
        made: Sequence[dict[str, Any]] = objectives.pair_rows(
            policy, rows, cfg.method, run, shown=shown, reference=reference, told=True
        )
    else:
        made = objectives.sample_rows(policy, rows, cfg.method, run, name=f"round{r}", reference=reference)
    if critic is not None:
        _with_targets(cfg, policy, critic, made, coefficient, r, run)
    if not plain_sampling(**sampling(cfg)):
        made = objectives.Lazy(len(made), partial(_not_drawn, made))
    return made, _record(cfg, before, drawn, parts, made, counts, coefficient)


def _sampled(
    cfg: Config, policy: LanguagePolicy, data: Data, judge: Judge | None, r: int, run: Run
) -> Judged | None:
    """The policy's own samples of the round's prompts, judged; None where all comes from --data."""
    size = cfg.prompts_per_round or len(data.prompts)
    count = size - round(size * cfg.offline_share)
    if not count:
        return None
    assert judge is not None
    prompts = [data.prompts[i] for i in in_turn(len(data.prompts), count, r, "prompts", run)]
    names = (f"round{r}/samples", f"round{r}/feedback")
    return sample_and_judge(policy, prompts, cfg.n, judge, names, run, quiet=cfg.quiet, **sampling(cfg))


def _offline(
    cfg: Config, data: Data, judge: Judge | None, r: int, run: Run
) -> Judged | list[dict[str, Any]] | None:
    """The round's share of --data: pairs as they are for methods that learn from pairs, else both answers judged."""
    size = cfg.prompts_per_round or (len(data.prompts) if cfg.offline_share < 1 else len(data.pairs))
    count = round(size * cfg.offline_share)
    if not count:
        return None
    taken = [data.pairs[i] for i in in_turn(len(data.pairs), count, r, "pairs", run)]
    if objectives.check_method(cfg.method).feedback == "pairs":
        return [
            {"input": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]} for row in taken
        ]
    assert judge is not None
    outputs = [row[side] for row in taken for side in ("chosen", "rejected")]
    samples = Samples([row["prompt"] for row in taken], outputs, 2)
    return samples, judge_once(judge, samples, f"round{r}/offline_feedback", run)


def in_turn(total: int, count: int, r: int, name: str, run: Run) -> list[int]:
    """Which `count` of `total` things round r takes: all in order where that is all, else the next of shuffled
    passes, so that each is taken once before any is taken twice."""
    if count == total:
        return list(range(total))
    return [_shuffled(total, at // total, name, run)[at % total] for at in range(r * count, (r + 1) * count)]


def _shuffled(total: int, lap: int, name: str, run: Run) -> list[int]:
    return torch.randperm(total, generator=run.generator("in-turn", name, lap)).tolist()


def _coefficient(cfg: Config, before: Record) -> float:
    if not before or before["kl"] is None:
        return before.get("kl_coef", cfg.kl)
    return next_kl(
        before["kl_coef"], before["kl"], before["sampled"], target=cfg.kl_target, horizon=cfg.kl_horizon
    )


def _less_kl(
    cfg: Config, policy: LanguagePolicy, samples: Samples, feedback: Feedback, kl: float, run: Run
) -> Feedback:
    """Scores less kl times the samples' log-ratio to the start model."""
    if not kl or objectives.check_method(cfg.method).feedback == "pairs":
        return feedback
    groups = [policy.group(p, samples.group(i)) for i, p in enumerate(samples.inputs)]
    with policy.reference():
        start = torch.tensor(policy.cached_logps(groups, run))
    own = torch.tensor([objectives.drawn_logp(o) for o in samples.outputs]).view_as(feedback.score)
    if own.isnan().any():
        own = torch.tensor(policy.cached_logps(groups, run))
    return Feedback(score=feedback.score - kl * (own - start), notes=feedback.notes)


def _select(cfg: Config, samples: Samples, feedback: Feedback, before: Record) -> Selection:
    if objectives.check_method(cfg.method).feedback == "pairs":
        return pairs(samples, feedback, how=cfg.pairs, margin=cfg.margin)
    if cfg.method == "best":
        return best(samples, feedback) if cfg.negative == "none" else ranked(samples, feedback)
    if cfg.method == "rwr":
        return reweight(samples, feedback, tau=cfg.tau)
    if cfg.method == "ppo" and cfg.value_coef:
        return advantages(samples, feedback, baseline="none")
    if cfg.baseline in ("ema", "running"):
        earlier = before.get("ema") if cfg.baseline == "ema" else _mean(before)
        return advantages(samples, feedback, baseline="ema", ema=ema_baseline(earlier, feedback, decay=1.0))
    return advantages(samples, feedback, baseline=cfg.baseline)


def _mean(record: Record) -> float | None:
    return record["score_sum"] / record["scored"] if record.get("scored") else None


def _with_targets(
    cfg: Config,
    policy: LanguagePolicy,
    critic: nn.Linear,
    rows: Sequence[dict[str, Any]],
    kl: float,
    r: int,
    run: Run,
) -> None:
    """Give the rows of ppo the critic's values, its targets, and advantages by token."""
    groups = [row["group"] for row in rows]
    values = token_values(policy, critic, groups, run, f"round{r}/values.json")
    with policy.reference():
        ref = policy.cached_token_logps(groups, run, f"round{r}/reference_token_logps.json")
    made = ppo_targets(
        [row["old"] for row in rows],
        ref,
        values,
        [row["score"] for row in rows],
        kl=kl,
        discount=cfg.discount,
        lam=cfg.gae_lambda,
    )
    for row, value, numbers in zip(rows, values, made, strict=True):
        row |= {"value": value, **numbers}


def _not_drawn(rows: Sequence[dict[str, Any]], i: int) -> dict[str, Any]:
    """Row i as one that no policy sampled, so that its metrics leave out KL and entropy: of samples at another
    temperature or with tokens cut off the means of log-probabilities are neither."""
    return {**rows[i], "drawn": [math.nan] * len(rows[i]["drawn"])}


def _record(
    cfg: Config,
    before: Record,
    drawn: Judged | None,
    parts: Sequence[Judged],
    rows: Sequence[dict[str, Any]],
    counts: dict[str, int],
    coefficient: float,
) -> Record:
    scores = [s for _, feedback in parts for s in feedback.score.flatten().tolist() if not math.isnan(s)]
    ema = before.get("ema")
    for _, feedback in parts:
        if scores:
            ema = ema_baseline(ema, feedback)
    moved: list[float] = []
    if (
        drawn is not None
        and objectives.check_method(cfg.method).feedback == "samples"
        and cfg.method != "best"
    ):
        moved = [
            d - f for row in rows for d, f in zip(row["drawn"], row["ref"], strict=True) if not math.isnan(d)
        ]
    sampled = len(drawn[0].outputs) if drawn else 0
    ties = tie_rate(drawn[1].score.tolist()) if drawn else math.nan
    asked = sum(len(samples.outputs) for samples, _ in parts)
    return {
        "counts": counts,
        "score": math.fsum(scores) / len(scores) if scores else None,
        "tie_rate": None if math.isnan(ties) else ties,
        "kl": math.fsum(moved) / len(moved) if moved else None,
        "kl_coef": coefficient,
        "sampled": sampled,
        "updates_per_refresh": cfg.max_steps
        or max(1, math.ceil(cfg.epochs * math.ceil(len(rows) / cfg.batch_size))),
        "reuse": cfg.epochs,
        "samples_used": before.get("samples_used", 0) + sampled,
        "reward_queries": before.get("reward_queries", 0) + asked,
        "score_sum": before.get("score_sum", 0.0) + math.fsum(scores),
        "scored": before.get("scored", 0) + len(scores),
        "ema": ema,
    }


def _summed(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(chain.from_iterable(counts))
    return {name: sum(int(part.get(name, 0)) for part in counts) for name in names}


def _keep(rows: Sequence[dict[str, Any]], name: str, run: Run) -> None:
    """Write the selected rows for people to read, with TRL's column names."""

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        names = {"input": "prompt", "output": "completion"}
        return {names.get(k, k): v.text if isinstance(v, Completion) else v for k, v in row.items()}

    run.once(name, lambda: [plain(row) for row in rows])

"""How close the answers of held-out pairs are, and how a tuned model sees each of them.

Letters: K pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heedful.checkpoint import load_into, read_part
from heedful.data.rows import prompt_key
from heedful.errors import HeedfulError
from heedful.evals import heldout
from heedful.feedback import Feedback, Samples
from heedful.optimise import running_buffers, trainable
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.recipes import prefer_data
from heedful.recipes.settings import sampling
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config

LIMIT = 256
"""Pairs looked at: those whose implicit rewards `heldout.measure` reports."""


def closeness(policy: LanguagePolicy, pairs: Sequence[dict[str, Any]], run: Run) -> list[dict[str, Any]]:
    """Of each pair: prompt (its key), overlap (Dice's share of tokens in common, counted as often as they occur), gap
    (log-probability of the chosen answer less that of the rejected one, nats, under the policy), tokens (of both)."""
    some = [pairs[i] for i in range(min(LIMIT, len(pairs)))]
    groups = _groups(policy, some)
    rows = []
    for pair, group, logp in zip(some, groups, policy.cached_logps(groups, run), strict=True):
        rows.append(
            {
                "prompt": prompt_key(pair["prompt"]).hex(),
                "overlap": token_overlap(*group.completions),
                "gap": logp[0] - logp[1],
                "tokens": sum(map(len, group.completions)),
            }
        )
    return rows


def token_overlap(a: Sequence[int], b: Sequence[int]) -> float:
    """2 |a and b| / (|a| + |b|) of two bags of tokens (Dice 1945): 1 for the same tokens in any order, 0 for none."""
    common = (Counter(a) & Counter(b)).total()
    return 2 * common / (len(a) + len(b))


def pair_rewards(cfg: Config, run: Run, policy: LanguagePolicy) -> list[list[float]]:
    """(K, 2): log policy less log reference of the chosen and the rejected answer of each held-out pair, in nats.

    run: a finished run of `heedful prefer` with these settings; policy: its start model, which takes on the final
    weights. The log-probabilities are those that the run has computed already. Kept as `pair_rewards.json`.
    """

    final = run.path(f"round{cfg.rounds - 1}/final")
    load_into(trainable(policy.module) | running_buffers(policy.module), read_part(final, "model"), final)
    data = prefer_data.load(cfg, run)
    if len(data.eval_pairs):
        pairs: Sequence[dict[str, Any]] = data.eval_pairs
    else:
        how = {"n": cfg.eval_n, "quiet": True, **sampling(cfg)}
        pairs = heldout.as_pairs(heldout.answer(policy, data.eval_prompts, _never, "before", run, **how))
    groups = _groups(policy, [pairs[i] for i in range(min(LIMIT, len(pairs)))])
    now = policy.cached_logps(groups, run)
    with policy.reference():
        was = policy.cached_logps(groups, run)
    h = [[a - b for a, b in zip(*sides, strict=True)] for sides in zip(now, was, strict=True)]
    return run.once("pair_rewards.json", lambda: h)


def _groups(policy: LanguagePolicy, pairs: Sequence[dict[str, Any]]) -> list[Group]:
    return [policy.group(pair["prompt"], [pair["chosen"], pair["rejected"]]) for pair in pairs]


def _never(samples: Samples) -> Feedback:
    raise HeedfulError(
        "the scores of the start model's held-out answers are missing; start anew in another folder"
    )

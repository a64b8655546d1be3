"""Before and after on held-out prompts: answers, scores, distance to the start model, implicit rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heedful.evals import language
from heedful.evals.intervals import kl_to_start, tie_rate
from heedful.feedback import Feedback, Judge, Samples, pairs
from heedful.policies.language import LanguagePolicy
from heedful.policies.stages import judge_once, plain_sampling, sample_once
from heedful.run import Run

PAIRS = 256
"""Most held-out pairs whose implicit rewards are measured."""


@dataclass
class Answers:
    """Samples on the held-out prompts and what the judge said, if there is one."""

    samples: Samples
    feedback: Feedback | None

    @property
    def texts(self) -> list[list[str]]:
        """The answers of each prompt."""
        n = self.samples.n
        return [
            [str(o) for o in self.samples.outputs[i : i + n]] for i in range(0, len(self.samples.outputs), n)
        ]

    @property
    def scores(self) -> list[list[float]] | None:
        """(B, N) or None."""
        return None if self.feedback is None else self.feedback.score.tolist()


@dataclass
class Measured:
    """Rows for the report, warnings, and flat numbers for result.json."""

    rows: list[dict[str, Any]]
    warnings: list[str]
    numbers: dict[str, float]


def answer(
    policy: LanguagePolicy,
    prompts: Sequence[Any],
    judge: Judge | None,
    name: str,
    run: Run,
    *,
    n: int,
    quiet: bool = False,
    **how: Any,
) -> Answers:
    """Sample n answers to each held-out prompt and judge them; kept in the run folder under `name`.

    Before and after draw from the same random streams, so their difference is the model's, not the draw's.
    """
    samples = sample_once(policy, prompts, n, f"{name}/samples", run, quiet=quiet, stream="held-out", **how)
    feedback = judge_once(judge, samples, f"{name}/feedback", run) if judge is not None else None
    return Answers(samples, feedback)


def as_pairs(answers: Answers) -> list[dict[str, Any]]:
    """Held-out pairs from the start model's answers, best against worst by the judge; none without a judge."""
    if answers.feedback is None or answers.samples.n < 2:
        return []
    rows = pairs(answers.samples, answers.feedback).rows
    return [{"prompt": row["input"], "chosen": row["chosen"], "rejected": row["rejected"]} for row in rows]


def measure(
    policy: LanguagePolicy,
    before: Answers,
    after: Answers,
    held_pairs: Sequence[dict[str, Any]],
    run: Run,
    *,
    quiet: bool = False,
    limit: int = PAIRS,
    **how: Any,
) -> Measured:
    """Everything a report says about before and after, each number with its interval where it can have one.

    how: how `after` was drawn, see `answer`. KL(tuned || start) is estimated on completions of the tuned model at
    temperature 1 with no token cut off: those of `after`, or one more sample a prompt when `after` was drawn
    otherwise, for their mean log-ratio is then no KL. Implicit rewards are those of at most `limit` held-out pairs.
    """
    prompts = before.samples.inputs
    rows = language.compare(prompts, before.texts, after.texts, before.scores, after.scores, seed=run.seed)
    signs, warnings = language.hacking_signs(before.texts, after.texts, prompts=prompts)
    numbers = {name: value for name, value in signs.items() if not math.isnan(value)}

    free = after.samples
    if not plain_sampling(**how):
        whole = {**how, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
        free = sample_once(policy, prompts, 1, "kl/samples", run, quiet=quiet, **whole)
    groups = [policy.group(p, free.outputs[i * free.n : (i + 1) * free.n]) for i, p in enumerate(prompts)]
    with policy.reference():
        start = policy.cached_logps(groups, run)
    drawn = np.array([o.logp for o in free.outputs]).reshape(len(prompts), free.n)
    kl = kl_to_start(drawn, start, seed=run.seed)
    rows.append(
        language.interval_row(
            "KL to the start model", 0.0, kl, "none", "nats", "per completion, at temperature 1"
        )
    )
    numbers |= {"kl": kl.estimate, "kl_low": kl.low, "kl_high": kl.high}

    if len(held_pairs):
        some = [held_pairs[i] for i in range(min(limit, len(held_pairs)))]
        groups = [policy.group(p["prompt"], [p["chosen"], p["rejected"]]) for p in some]
        now = np.array(policy.cached_logps(groups, run))
        with policy.reference():
            was = np.array(policy.cached_logps(groups, run))
        h = now - was
        more, fell = language.implicit_rewards(h[:, 0], h[:, 1], seed=run.seed)
        rows += more
        warnings += fell
        numbers |= {
            "h_w": float(h[:, 0].mean()),
            "h_l": float(h[:, 1].mean()),
            "held_out_pairs": float(len(some)),
        }
        numbers["preference_accuracy"] = float(((h[:, 0] > h[:, 1]) + 0.5 * (h[:, 0] == h[:, 1])).mean())
    if before.scores is not None and after.scores is not None and before.samples.n > 1:
        numbers |= {"tie_rate_before": tie_rate(before.scores), "tie_rate_after": tie_rate(after.scores)}
    for row in rows:
        numbers_of(row, numbers)
    return Measured(rows, warnings, numbers)


def numbers_of(row: dict[str, Any], numbers: dict[str, float]) -> None:
    """Add a report row's before, after, change and interval to the flat numbers, under its name."""
    key = language.key_of(row["name"])
    for part in ("before", "after", "change"):
        if row[part] is not None:
            numbers.setdefault(f"{key}_{part}", float(row[part]))
    if row["interval"]:
        numbers[f"{key}_change_low"], numbers[f"{key}_change_high"] = map(float, row["interval"])


def gold_scores(gold: Judge, answers: Answers, name: str, run: Run) -> list[list[float]]:
    """(B, N) scores by a judge that nothing was learned from, kept as `<name>/gold`."""
    return judge_once(gold, answers.samples, f"{name}/gold", run).score.tolist()


def add_gold(measured: Measured, before: Answers, after: Answers, gold: Judge, run: Run) -> None:
    """Add the gold judge's scores before and after to what was measured."""
    sides = [
        gold_scores(gold, answers, name, run) for answers, name in ((before, "before"), (after, "after"))
    ]
    row = language.row("gold score", *sides, better="higher", unit="", seed=run.seed)
    measured.rows.append(row)
    numbers_of(row, measured.numbers)

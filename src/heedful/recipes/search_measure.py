"""How well a model solves: accuracy, pass@k, accuracy against a token budget, errors of each kind; all by problem.

Letters: P problems, n streams of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval, share
from heedful.evals.streams import accuracy_by_budget, error_counts
from heedful.policies.language import Completion, LanguagePolicy
from heedful.policies.stages import sample_and_judge
from heedful.recipes.search_world import World
from heedful.run import Run


@dataclass(frozen=True)
class Measured:
    """What came of one test set. score and tokens: (P, n); finished: (P, n) whether the stream ended by itself.
    reasons: (P, n) what the judge said. counts: by name (P,), means over the n streams of a problem; empty where the
    world counts nothing.
    """

    prompts: list[str]
    texts: list[list[str]]
    reasons: list[list[str]]
    score: np.ndarray
    tokens: np.ndarray
    finished: np.ndarray
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def solved(self) -> np.ndarray:
        """(P, n) whether the score is above 0; no opinion is not solved."""
        return np.nan_to_num(self.score) > 0

    @property
    def accuracy(self) -> Interval:
        """Share of streams that solve their problem; the interval is over problems."""
        return share(self.solved.astype(float).tolist())

    def pass_at(self, k: int) -> np.ndarray:
        """(P,) probability that one of k streams out of the n solves it: the unbiased estimate of Chen et al. 2021."""
        n, right = self.solved.shape[1], self.solved.sum(1)
        if not 1 <= k <= n:
            raise ValueError(f"pass@{k} of {n} streams")
        return np.array([1 - math.comb(n - int(c), k) / math.comb(n, k) for c in right])

    def by_budget(self) -> list[tuple[int, float]]:
        """(tokens, accuracy of streams that are cut there): solved ones count once they are that short."""
        return accuracy_by_budget(self.solved, self.tokens)

    def errors(self) -> dict[str, Interval]:
        """Each count by stream with the paper's interval; empty where the world counts nothing."""
        rows = [dict(zip(self.counts, row, strict=True)) for row in zip(*self.counts.values(), strict=True)]
        return error_counts(rows) if rows else {}

    def numbers(self) -> dict[str, float]:
        """Means for result.json; errors_per_operation is the share of operations with wrong arithmetic."""
        told = {
            "accuracy": float(self.solved.mean()),
            "score": float(np.nanmean(self.score)) if np.isfinite(self.score).any() else math.nan,
            "tokens": float(self.tokens.mean()),
            "unfinished": float(1 - self.finished.mean()),
            **{name: float(values.mean()) for name, values in self.counts.items()},
        }
        explored = self.counts.get("explored")
        if explored is not None and "arithmetic" in self.counts:
            told["errors_per_operation"] = float(self.counts["arithmetic"].sum() / max(1.0, explored.sum()))
        return told


def greedy(
    policy: LanguagePolicy, world: World, prompts: Sequence[str], name: str, run: Run, cfg: Any
) -> Measured:
    """One stream for each problem, always the most likely token; kept in the run folder under `name`."""
    return measure(policy, world, prompts, 1, f"{name}/greedy", run, cfg, temperature=0.0)


def measure(
    policy: LanguagePolicy,
    world: World,
    prompts: Sequence[str],
    n: int,
    name: str,
    run: Run,
    cfg: Any,
    *,
    temperature: float,
) -> Measured:
    """n streams for each problem, judged and counted; kept in the run folder as `<name>-samples.jsonl` and the like.

    Streams are drawn with random numbers that depend on the test set's place in `name` alone, so that two models, or
    one before and after, are compared on the same draws. cfg: max_new_tokens, max_rows, quiet.
    """
    samples, feedback = sample_and_judge(
        policy,
        prompts,
        n,
        world.judge,
        (f"{name}-samples", f"{name}-feedback"),
        run,
        stream="search test",
        quiet=cfg.quiet,
        temperature=temperature,
        max_new_tokens=room(policy, prompts, cfg.max_new_tokens),
        max_rows=cfg.max_rows,
    )
    outputs: list[list[Completion]] = [samples.group(i) for i in range(len(samples.inputs))]
    counted = run.once(
        f"{name}-census.json",
        lambda: [
            [world.census(prompt, str(out)) for out in group]
            for prompt, group in zip(samples.inputs, outputs, strict=True)
        ],
    )
    names = list(counted[0][0]) if counted else []
    counts = {key: np.array([np.mean([one[key] for one in group]) for group in counted]) for key in names}
    return Measured(
        prompts=list(samples.inputs),
        texts=[[str(out) for out in group] for group in outputs],
        reasons=[
            (feedback.notes or [""] * n * len(outputs))[i * n : (i + 1) * n] for i in range(len(outputs))
        ],
        score=feedback.score.double().numpy(),
        tokens=np.array([[len(out.ids) for out in group] for group in outputs]),
        finished=np.array([[out.finished for out in group] for group in outputs]),
        counts=counts,
    )


def room(policy: LanguagePolicy, prompts: Sequence[str], wanted: int) -> int:
    """Tokens a stream may have: what is asked for, and no more than the context has beside the longest problem.

    Raises HeedfulError for a problem that fills the context.
    """
    lengths = [len(policy.encoder.prompt(prompt)) for prompt in prompts]
    longest = max(lengths, default=1)
    left = policy.context - longest
    if left < 1:
        raise HeedfulError(
            f"a problem has {longest} tokens, and the model's context {policy.context}: leave it out, or train with a "
            f"longer --context (it begins {prompts[lengths.index(longest)]!r:.80})"
        )
    return min(wanted, left) if wanted else left

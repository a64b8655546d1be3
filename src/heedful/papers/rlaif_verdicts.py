"""Reward models of real GPT-4 verdicts for the RLAIF reproduction, cheap enough for a CPU: linear in fixed features.

Two of them, of different prompts and different features, so that one can be the critic and the other the evaluator:
what a frozen language model makes of an answer, and what a reader can count in it. Both are Bradley-Terry models
(Bradley and Terry 1952), and both see no more of an answer than the models here can write.

Letters: M pairs, D features.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heedful.evals import texts
from heedful.run import derive_seed

if TYPE_CHECKING:
    from heedful.judges.comparing import Comparer, Comparison
    from heedful.policies.language import LanguagePolicy

Array = NDArray[np.float64]
Features = Callable[[Sequence[str], Sequence[str]], Array]
"""(prompts, answers), M each -> (M, D)."""

OUTPUTS = "preferences/alpaca_eval_outputs.jsonl.gz"
VERDICTS = "preferences/alpaca_eval_gpt4_preferences.jsonl.gz"
RIDGES = (1.0, 10.0, 100.0, 1000.0)
FOLDS = 5
COMPONENTS = 32
"""Principal components of the hidden states that are kept."""


def data_folder() -> Path | None:
    """The folder `data` of `shared` beside the checkout, or None where it is not there."""
    places = (Path(__file__).resolve().parents[4], Path.cwd().resolve().parent)
    found = [place / "shared" / "data" for place in places]
    return next(
        (folder for folder in found if (folder / OUTPUTS).is_file() and (folder / VERDICTS).is_file()), None
    )


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a compressed JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def shuffled(ids: Sequence[Any], seed: Any) -> list[Any]:
    """Prompt ids in an order that is a function of id and seed alone."""
    return sorted(ids, key=lambda i: derive_seed(0, str(seed), "prompts", str(i)))


# ---- features


def counted(shorten: Callable[[str], str]) -> Features:
    """What can be counted in an answer, and of it in its question: thirteen numbers."""

    def measure(prompt: str, text: str) -> list[float]:
        text = shorten(text)
        found, content = texts.words(text), texts.content_words(text)
        lines = text.splitlines()
        echo = texts.question_echo(prompt, text)
        return [
            math.log1p(len(found)),
            math.sqrt(texts.sentence_count(text)),
            texts.repetition(text),
            float(texts.ends_in_sentence(text)),
            len(set(found)) / max(1, len(found)),
            len(content) / max(1, len(found)),
            0.0 if math.isnan(echo) else echo,
            len(lines) / 10,
            float(any(re.match(r"\s*(\d+[.)]|[-*•])\s", line) for line in lines)),
            text.count('"') / 5,
            sum(map(len, found)) / max(1, len(found)),
            float(re.match(r"(I'm sorry|I am|I'm|As an AI)\b", text) is not None),
            sum(char.isdigit() for char in text) / max(1, len(text)),
        ]

    return lambda prompts, answers: np.array([measure(p, a) for p, a in zip(prompts, answers, strict=True)])


def mean_states(policy: LanguagePolicy, prompts: Sequence[str], answers: Sequence[Sequence[Any]]) -> Array:
    """The mean hidden state over each answer's tokens, (answers in all, width), prompt by prompt: answers[i] are those
    to prompts[i], as completions of the policy's tokens."""
    import torch

    rows = []
    for prompt, given in zip(prompts, answers, strict=True):
        with torch.no_grad(), policy.eval_mode(), policy.autocast():
            hidden, layout = policy.hidden([policy.group(prompt, given)])
        sums = torch.zeros(layout.shape[0], hidden.shape[-1])
        sums.index_add_(0, layout.row.cpu(), hidden.float().cpu())
        rows.append(sums / torch.bincount(layout.row.cpu(), minlength=layout.shape[0])[:, None])
    return torch.cat(rows).double().numpy()


# ---- fitting


@dataclass(frozen=True)
class Reward:
    """A linear reward: weights @ ((features - centre) @ basis / scale). Plain lists, so that JSON holds it."""

    weights: list[float]
    scale: list[float]
    centre: list[float]
    basis: list[list[float]]
    ridge: float

    def scores(self, features: Array) -> Array:
        """(M, D) -> (M,)."""
        return (
            (features - np.array(self.centre))
            @ np.array(self.basis)
            / np.array(self.scale)
            @ np.array(self.weights)
        )


def fit_reward(chosen: Array, rejected: Array, groups: Sequence[Any], *, components: int = 0) -> Reward:
    """A Bradley-Terry reward of (M, D) features, with the ridge that predicts held-out groups (prompts) best.

    components: of the first D - 1 features so many principal components are kept, all on one scale; the last feature
    stays as it is.
    """
    both = np.concatenate([chosen, rejected])
    centre = both.mean(0)
    basis = np.eye(both.shape[1])
    if components:
        _, _, rotation = np.linalg.svd(both[:, :-1] - centre[:-1], full_matrices=False)
        kept = rotation[:components].T
        basis = np.zeros((both.shape[1], kept.shape[1] + 1))
        basis[:-1, :-1], basis[-1, -1] = kept, 1.0
    scale = ((both - centre) @ basis).std(0) + 1e-9
    if components:
        scale[:-1] = scale[:-1].max()
    difference = (chosen - rejected) @ basis / scale
    names = sorted(set(groups), key=str)
    fold = np.array([names.index(group) % FOLDS for group in groups])

    def held_out(ridge: float) -> float:
        losses = []
        for k in range(FOLDS):
            weights = newton(difference[fold != k], ridge)
            losses.append(np.logaddexp(0, -difference[fold == k] @ weights).sum())
        return float(np.sum(losses))

    ridge = min(RIDGES, key=held_out)
    weights = newton(difference, ridge)
    return Reward(weights.tolist(), scale.tolist(), centre.tolist(), basis.tolist(), ridge)


def newton(difference: Array, ridge: float) -> Array:
    """The weights (D,) that minimise sum log(1 + exp(-difference @ w)) + ridge / 2 |w|^2."""
    weights = np.zeros(difference.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-difference @ weights))
        gradient = difference.T @ (1 - p) - ridge * weights
        curve = (difference * (p * (1 - p))[:, None]).T @ difference + ridge * np.eye(len(weights))
        step = np.linalg.solve(curve, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def right(reward: Reward, chosen: Array, rejected: Array) -> Array:
    """(M,) 1 where the reward orders a verdict's answers as GPT-4 did, .5 where it sees no difference, else 0."""
    gap = reward.scores(chosen) - reward.scores(rejected)
    return (gap > 0) + 0.5 * (gap == 0)


def comparer(reward: Reward, features: Features) -> Comparer:
    """The reward as a judge of two answers: p is the Bradley-Terry model's own probability."""

    def compare(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Comparison:
        import torch

        from heedful.judges.comparing import Comparison

        gap = reward.scores(features(prompts, second)) - reward.scores(features(prompts, first))
        return Comparison(torch.tensor(1 / (1 + np.exp(-gap)), dtype=torch.float32))

    return compare

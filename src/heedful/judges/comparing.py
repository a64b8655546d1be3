"""Comparing two answers: what a verdict is, whoever gives it, and what survives exchanging the two.

Models prefer an answer for the place it stands at (Zheng et al. 2023, arXiv 2306.05685, section 3.4; Wang et al. 2023,
arXiv 2305.17926), so whoever reads the answers one after the other is asked in both orders.

Letters: B inputs, N samples per input, M pairs of answers.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Judge, Samples
from heedful.policies.asking import clean

Disagreement = Literal["nan", "probability"]
TIE = 0.5


@dataclass
class Comparison:
    """What someone thought of M pairs of answers.

    p: (M,) float32, the probability that the second answer is better than the first; .5 is a tie, NaN no opinion.
    notes: M short texts for the report. counts: ties, disagreements (the two orders name different winners),
    unparsable, and what else the comparer counts. rates: where they were measured, "position", the mean probability
    that a comparer gave to the answer it was shown first (.5 is unbiased), and "choices", the mean probability that a
    local model gave to the two choices together (near 0, it does not answer the question). examples: up to five
    replies that could not be read.
    Raises HeedfulError for another shape or type, and for a p outside [0, 1].
    """

    p: Tensor
    notes: list[str] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.p, Tensor) or self.p.dtype != torch.float32 or self.p.ndim != 1:
            raise HeedfulError("comparison: p must be a float32 tensor with one number for each pair")
        if ((self.p < 0) | (self.p > 1) | self.p.isinf()).any():
            raise HeedfulError("comparison: each p must lie in [0, 1], or be NaN for no opinion")
        if self.notes is not None and len(self.notes) != len(self.p):
            raise HeedfulError(f"comparison: {len(self.notes)} notes for {len(self.p)} pairs; give one each")


Comparer = Callable[[Sequence[Any], Sequence[str], Sequence[str]], Comparison]
"""(prompts, first answers, second answers), M each -> Comparison."""

Look = Callable[[Sequence[tuple[int, str, str]]], Sequence[float | None]]
"""(number of the pair, answer shown first, answer shown second) of each question -> the probability that the answer
shown second is better; None where there is no readable verdict."""


# ---- both orders


def both_orders(
    first: Sequence[str], second: Sequence[str], look: Look, *, disagreement: Disagreement = "nan"
) -> Comparison:
    """The verdict on each pair by someone who is asked in both orders, each pair's two questions one after the other.

    Equal answers (white space aside) are a tie and not asked about. Where both orders name the same winner, or both a
    tie, p is the mean of the two. Where they do not, p is NaN, or the mean under disagreement="probability". Where one
    of the two cannot be read, p is NaN. Counts: ties, disagreements, unparsable; the rest of the pairs has a winner.
    Raises HeedfulError for an unknown `disagreement`, and for verdicts that do not fit the questions.
    """
    if disagreement not in get_args(Disagreement):
        raise HeedfulError(f"there is no disagreement={disagreement!r}; choose nan or probability")
    asked = [
        i for i, (a, b) in enumerate(zip(first, second, strict=True)) if clean(a).split() != clean(b).split()
    ]
    shown = [(i, *pair) for i in asked for pair in ((first[i], second[i]), (second[i], first[i]))]
    verdicts = list(look(shown))
    if len(verdicts) != len(shown):
        raise HeedfulError(f"{len(verdicts)} verdicts came on {len(shown)} questions")
    p = [TIE] * len(first)
    notes = ["the answers are equal"] * len(first)
    counts = {"ties": len(first) - len(asked), "disagreements": 0, "unparsable": 0}
    places: list[float] = []
    for i, straight, exchanged in zip(asked, verdicts[::2], verdicts[1::2], strict=True):
        places += [1 - verdict for verdict in (straight, exchanged) if verdict is not None]
        if straight is None or exchanged is None:
            p[i], notes[i] = math.nan, "no readable verdict"
            counts["unparsable"] += 1
            continue
        mean = (straight + (1 - exchanged)) / 2
        winners = _winner(straight), -_winner(exchanged)
        if winners[0] != winners[1]:
            p[i] = mean if disagreement == "probability" else math.nan
            notes[i] = "the two orders disagree"
            counts["disagreements"] += 1
        else:
            p[i], notes[i] = mean, ("tie", "the second is better", "the first is better")[winners[0]]
            counts["ties"] += winners[0] == 0
    rates = {"position": math.fsum(places) / len(places)} if places else {}
    return Comparison(torch.tensor(p, dtype=torch.float32), notes, counts, rates)


def _winner(p: float) -> int:
    """1 for the second, -1 for the first, 0 for a tie."""
    return (p > TIE) - (p < TIE)


# ---- comparers from judges, and back


def by_score(judge: Judge) -> Comparer:
    """A comparer from a judge that scores: the higher score wins, equal scores are a tie, NaN where one has none.

    Counts: ties, no_opinion.
    """

    def compare(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Comparison:
        same_length(prompts, first, second)
        outputs = [answer for pair in zip(first, second, strict=True) for answer in pair]
        score = judge(Samples(inputs=list(prompts), outputs=outputs, n=2)).score.view(-1, 2).double().cpu()
        difference = score[:, 1] - score[:, 0]
        difference = difference.sign().where(~difference.isnan(), math.nan)  # the sign of NaN is 0
        counts = {"ties": int((difference == 0).sum()), "no_opinion": int(difference.isnan().sum())}
        return Comparison(p=((difference + 1) / 2).float(), counts=counts)

    return compare


def as_judge(comparer: Comparer) -> Judge:
    """A judge from a comparer: every two outputs of an input are compared, N (N - 1) / 2 pairs for each input.

    score (B, N): the mean probability of winning, over the comparisons of the output that have a verdict; NaN where
    none has. notes: how many wins of how many.
    """

    def judge(samples: Samples) -> Feedback:
        pairs = [(i, a, b) for i in range(len(samples.inputs)) for a, b in combinations(range(samples.n), 2)]
        texts = [str(output) for output in samples.outputs]
        comparison = comparer(
            [samples.inputs[i] for i, _, _ in pairs],
            [texts[i * samples.n + a] for i, a, _ in pairs],
            [texts[i * samples.n + b] for i, _, b in pairs],
        )
        wins: list[list[float]] = [[] for _ in texts]
        for (i, a, b), p in zip(pairs, comparison.p.tolist(), strict=True):
            if not math.isnan(p):
                wins[i * samples.n + a].append(1 - p)
                wins[i * samples.n + b].append(p)
        score = torch.tensor([math.fsum(won) / len(won) if won else math.nan for won in wins])
        notes = [f"{math.fsum(won):.4g} wins of {len(won)}" if won else "never compared" for won in wins]
        return Feedback(score=score.float().view(len(samples.inputs), samples.n), notes=notes)

    return judge


def from_verdicts(path: str | Path, columns: Mapping[str, str] | None = None) -> Comparer:
    """A comparer that looks verdicts up in a file of preference rows (`prompt`, `chosen`, `rejected`).

    Prompts and answers are matched by content, white space at an answer's ends aside. p is the share of the file's
    verdicts on the pair that prefer the second answer; NaN where the file has none. Equal answers are a tie.
    Counts: ties, missing (pairs the file does not have), contradicted (pairs it has in both directions).
    columns: the file's names where they differ. Raises HeedfulError with file and line of everything that is wrong.
    """
    from heedful.data.rows import open_rows

    seen: Counter[bytes] = Counter()
    rows = open_rows(path, "preference", columns)
    for i, row in enumerate(rows):
        prompt = row.get("prompt")
        if not prompt:
            raise HeedfulError(f"{rows.where(i)}: 'prompt' is missing; a verdict needs what was asked")
        seen[_verdict_key(prompt, row["chosen"], row["rejected"])] += 1

    def compare(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Comparison:
        same_length(prompts, first, second)
        p: list[float] = []
        counts = {"ties": 0, "missing": 0, "contradicted": 0}
        for prompt, a, b in zip(prompts, first, second, strict=True):
            for_a, for_b = seen[_verdict_key(prompt, a, b)], seen[_verdict_key(prompt, b, a)]
            if a.strip() == b.strip():
                for_a = for_b = 1
            elif for_a and for_b:
                counts["contradicted"] += 1
            counts["missing"] += not for_a + for_b
            counts["ties"] += for_a == for_b > 0
            p.append(for_b / (for_a + for_b) if for_a + for_b else math.nan)
        return Comparison(p=torch.tensor(p, dtype=torch.float32), counts=counts)

    return compare


def _verdict_key(prompt: Any, better: str, worse: str) -> bytes:
    """16 bytes that stand for a verdict."""
    from heedful.data.rows import prompt_key

    digest = hashlib.blake2b(prompt_key(prompt), digest_size=16)
    for answer in (better, worse):
        digest.update(hashlib.blake2b(answer.strip().encode(errors="surrogatepass"), digest_size=16).digest())
    return digest.digest()


# ---- what recipes ask of a comparison


def same_length(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> None:
    """Raises HeedfulError unless there are as many prompts as first and second answers."""
    if not len(prompts) == len(first) == len(second):
        raise HeedfulError(
            f"there are {len(prompts)} prompts, but {len(first)} first answers and {len(second)} second ones to compare"
        )


def check_useful(comparison: Comparison, who: str, *, least: int = 1) -> None:
    """Raises HeedfulError when fewer than `least` pairs have a winner, with the counts and what can be done about it.

    who: the comparer as the user knows it, such as "the critic gpt-4 at http://...".
    """
    pairs = len(comparison.p)
    winners = int(((comparison.p - TIE).abs() > 0).sum())
    if winners >= least:
        return
    if not pairs:
        raise HeedfulError(
            f"{who} was given no pairs of answers to compare; give it prompts with two answers each"
        )
    lost = {what: comparison.counts.get(what, 0) for what in _ADVICE}
    why = max(lost, key=lambda what: lost[what])
    told = ", ".join(f"{count} {_CALLED[what]}" for what, count in lost.items() if count)
    place = comparison.rates.get("position")
    if lost["disagreements"] and place is not None:
        told += f"; it gave the answer shown first {place:.0%} of its votes"
    if comparison.examples:
        told += f"; a reply that could not be read: {comparison.examples[0]!r}"
    raise HeedfulError(
        f"{who} names a winner in {winners} of {pairs} pairs of answers, and at least {least} are needed"
        f"{f' ({told})' if told else ''}. {_ADVICE[why] if lost[why] else 'Use another judge.'}"
    )


_CALLED = {
    "ties": "ties",
    "disagreements": "where the two orders disagree",
    "unparsable": "without a readable verdict",
    "missing": "that the file of verdicts does not have",
    "no_opinion": "without a score",
}
_ADVICE = {
    "ties": "The answers are too much alike for it: sample them at a higher temperature or with another model, say the "
    "criterion more sharply, or use a stronger critic.",
    "disagreements": "It goes by the place an answer stands at: use a stronger critic, or keep its mean probability "
    "with disagreement='probability'.",
    "unparsable": "It does not keep to the form of the reply: use a stronger critic, or give it more tokens to answer.",
    "missing": "The file must hold the very prompts and answers that are compared.",
    "no_opinion": "The judge must score both answers of a pair.",
}

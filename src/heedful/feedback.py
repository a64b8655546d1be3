"""What flows through every job: samples, what someone thought of them, and the rows to learn from.

A judge turns Samples into Feedback. A selector turns both into rows, plain dicts that a recipe trains on;
this is where methods differ most. Every selector returns a Selection, whose counts say what was made and
what was left out. Selectors are pure: same values in, same rows out, in the order of the inputs.

Letters: B inputs, N samples per input. The group of an input is its own N outputs; two equal inputs are two
groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from heedful.errors import HeedfulError
from heedful.losses import rwr_weight

Baseline = Literal["none", "batch", "group", "leave_one_out", "ema"]
How = Literal["best_worst", "all", "adjacent", "better"]
Ties = Literal["first", "all", "drop"]


@dataclass
class Samples:
    """N outputs for each of B inputs, input-major: outputs[i] answers inputs[i // n].

    Raises HeedfulError when there are not exactly n outputs for each input.
    """

    inputs: list[Any]
    outputs: list[Any]
    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise HeedfulError(f"samples: n is {self.n}; it must be at least 1")
        if len(self.outputs) != len(self.inputs) * self.n:
            raise HeedfulError(
                f"samples: {len(self.outputs)} outputs for {len(self.inputs)} inputs with n={self.n}; "
                f"there must be {len(self.inputs) * self.n}, those of one input next to each other"
            )

    def group(self, i: int) -> list[Any]:
        """The n outputs of input i."""
        return self.outputs[i * self.n : (i + 1) * self.n]


@dataclass
class Feedback:
    """What someone thought of the samples.

    score: (B, N) floating point, higher is better, NaN is no opinion.
    better: B outputs to imitate instead; None (whole, or in a place) is none offered.
    notes: B * N free texts for the report, one for each output.

    Raises HeedfulError for other shapes or types, and for an infinite score.
    """

    score: Tensor
    better: list[Any] | None = None
    notes: list[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.score, Tensor) or not self.score.is_floating_point() or self.score.ndim != 2:
            found = tuple(self.score.shape) if isinstance(self.score, Tensor) else type(self.score).__name__
            raise HeedfulError(
                f"feedback: score is {found} of type {getattr(self.score, 'dtype', 'object')}; "
                "a floating-point tensor of shape (inputs, samples per input) is needed"
            )
        if self.score.isinf().any():
            i, j = self.score.isinf().nonzero()[0].tolist()
            raise HeedfulError(
                f"feedback: score[{i}, {j}] is infinite; use a finite number, or NaN for no opinion"
            )
        b, n = self.score.shape
        if self.better is not None and len(self.better) != b:
            raise HeedfulError(
                f"feedback: {len(self.better)} better outputs for {b} inputs; give one each, or None"
            )
        if self.notes is not None and len(self.notes) != b * n:
            raise HeedfulError(
                f"feedback: {len(self.notes)} notes for {b * n} outputs; give one for each output"
            )


Judge = Callable[[Samples], Feedback]
"""A rule, a reward model, a critic, a language model, a retriever or a person."""


class Selection(NamedTuple):
    """Rows to learn from, and counts of what was made and what was left out (named by each selector)."""

    rows: list[dict[str, Any]]
    counts: dict[str, int]


# ---- selectors


def imitate(samples: Samples, feedback: Feedback) -> Selection:
    """The outputs offered to imitate: {"input", "output"}, one for each input with a `better`.

    Counts: rows, no_opinion (inputs without one). Raises HeedfulError when nothing is offered at all.
    """
    better = _better(samples, feedback)
    rows = [{"input": x, "output": y} for x, y in zip(samples.inputs, better, strict=True) if y is not None]
    return Selection(rows, {"rows": len(rows), "no_opinion": len(better) - len(rows)})


def best(samples: Samples, feedback: Feedback, *, ties: Ties = "first") -> Selection:
    """The best-scored output of each input: {"input", "output", "score"}.

    Outputs without a score are passed over; an input without any score gives no row. When several outputs
    share the highest score, ties="first" takes the one sampled first, "all" takes them all, "drop" leaves
    the input out.
    Counts: rows, ties (inputs with a shared highest score), no_opinion (outputs without a score), too_few
    (inputs without any score).
    """
    if ties not in ("first", "all", "drop"):
        raise HeedfulError(f"there is no ties={ties!r}; choose first, all or drop")
    rows: list[dict[str, Any]] = []
    counts = {"rows": 0, "ties": 0, "no_opinion": 0, "too_few": 0}
    for x, scored in _scored(samples, feedback, counts):
        if not scored:
            counts["too_few"] += 1
            continue
        top = max(score for _, score in scored)
        winners = [(y, score) for y, score in scored if score == top]
        shared = len(winners) > 1
        counts["ties"] += shared
        if shared and ties != "all":
            winners = winners[:1] if ties == "first" else []
        rows += [{"input": x, "output": y, "score": score} for y, score in winners]
    counts["rows"] = len(rows)
    return Selection(rows, counts)


def ranked(samples: Samples, feedback: Feedback) -> Selection:
    """Every scored output of each input, best first: {"input", "output", "score"}, an input's rows beside each other.

    Of equal scores the first sampled comes first. Counts: rows, ties (inputs whose scores are all equal, left out),
    no_opinion (outputs without a score), too_few (inputs with fewer than two scores, left out).
    """
    rows: list[dict[str, Any]] = []
    counts = {"rows": 0, "ties": 0, "no_opinion": 0, "too_few": 0}
    for x, scored in _scored(samples, feedback, counts):
        if len(scored) < 2:
            counts["too_few"] += 1
        elif len({score for _, score in scored}) == 1:
            counts["ties"] += 1
        else:
            rows += [
                {"input": x, "output": y, "score": s} for y, s in sorted(scored, key=lambda pair: -pair[1])
            ]
    counts["rows"] = len(rows)
    return Selection(rows, counts)


def pairs(samples: Samples, feedback: Feedback, *, how: How = "best_worst", margin: float = 0.0) -> Selection:
    """Preference pairs within each group:
    {"input", "chosen", "rejected", "margin", "chosen_score", "rejected_score"}.

    how: "best_worst" pairs the highest with the lowest score (the first sampled of several); "all" pairs
    every two outputs (as in Tajwar et al. 2024's code); "adjacent" pairs each output with those of the next
    lower score level only (LeReT, Hsu et al. 2024); "better" pairs the offered `better` with each output,
    scored or not, and its margin and chosen_score are None.

    Outputs without a score take no part (but see "better"). A pair of equal scores is a tie and is dropped;
    so is one whose scores differ by less than `margin`, and one whose two outputs are the same. Counts:
    pairs, ties, too_close, identical, no_opinion (outputs without a score; for "better", inputs without
    one), too_few (inputs with fewer than two scores). In "best_worst", a group of equal scores is one tie.
    """
    if how not in ("best_worst", "all", "adjacent", "better"):
        raise HeedfulError(f"there is no how={how!r}; choose best_worst, all, adjacent or better")
    if not margin >= 0:
        raise HeedfulError(f"pairs: margin is {margin}; it must be 0 or more")
    if how == "better":
        return _pairs_with_better(samples, feedback, margin)
    rows: list[dict[str, Any]] = []
    counts = {"pairs": 0, "ties": 0, "too_close": 0, "identical": 0, "no_opinion": 0, "too_few": 0}
    for x, scored in _scored(samples, feedback, counts):
        if len(scored) < 2:
            counts["too_few"] += 1
            continue
        for (winner, high), (loser, low) in _candidates(scored, how):
            # scores come in float32: 0.4 and 0.3 count as 0.1 apart
            slack = 1e-6 * max(abs(high), abs(low))
            if high == low:
                counts["ties"] += 1
            elif high - low < margin - slack:
                counts["too_close"] += 1
            elif _same(winner, loser):
                counts["identical"] += 1
            else:
                rows.append(_pair(x, winner, loser, high, low))
    counts["pairs"] = len(rows)
    return Selection(rows, counts)


def ema_baseline(ema: float | None, feedback: Feedback, *, decay: float = 0.9) -> float:
    """The moving average of scores after this round: decay * ema + (1 - decay) * mean score.

    ema None (the first round) gives the mean score; a round without any score leaves ema as it is. Raises
    HeedfulError for a decay outside [0, 1], and when there is neither an average nor a score.
    """
    if not 0 <= decay <= 1:
        raise HeedfulError(f"ema_baseline: decay is {decay}; it must lie in [0, 1]")
    scores = [score for row in feedback.score.tolist() for score in row if not math.isnan(score)]
    if not scores:
        if ema is None:
            raise HeedfulError("ema_baseline: no output has a score, so there is nothing to average")
        return ema
    mean = math.fsum(scores) / len(scores)
    return mean if ema is None else decay * ema + (1 - decay) * mean


def advantages(
    samples: Samples, feedback: Feedback, *, baseline: Baseline = "group", ema: float | None = None
) -> Selection:
    """Every scored output with its score less a baseline: {"input", "output", "advantage", "score"}.

    baseline: "none" is 0; "batch" the mean of all scores; "group" the mean of the input's own scores;
    "leave_one_out" the mean of the input's *other* scores (Kool et al. 2019), so an output alone in its
    group has none and gives no row; "ema" the number in `ema`, from `ema_baseline` over *earlier* rounds
    (an average that holds this round's scores is biased).
    Counts: rows, no_opinion (outputs without a score), too_few (outputs without a baseline).
    """
    if baseline not in ("none", "batch", "group", "leave_one_out", "ema"):
        raise HeedfulError(
            f"there is no baseline {baseline!r}; choose none, batch, group, leave_one_out or ema"
        )
    if (ema is None) == (baseline == "ema"):
        raise HeedfulError(
            "baseline='ema' needs ema=, the average from ema_baseline; other baselines take none"
        )
    counts = {"rows": 0, "no_opinion": 0, "too_few": 0}
    groups = list(_scored(samples, feedback, counts))
    everything = [score for _, scored in groups for _, score in scored]
    fixed = {"none": 0.0, "ema": ema, "batch": math.fsum(everything) / max(1, len(everything))}.get(baseline)
    rows: list[dict[str, Any]] = []
    for x, scored in groups:
        scores = [score for _, score in scored]
        for i, (y, score) in enumerate(scored):
            others = scores if baseline == "group" else scores[:i] + scores[i + 1 :]
            if fixed is None and not others:
                counts["too_few"] += 1
                continue
            less = math.fsum(others) / len(others) if fixed is None else fixed
            rows.append({"input": x, "output": y, "advantage": score - less, "score": score})
    counts["rows"] = len(rows)
    return Selection(rows, counts)


def reweight(
    samples: Samples, feedback: Feedback, *, tau: float = 1.0, clamp: float | None = 10.0
) -> Selection:
    """Every scored output, weighted by exp(score / tau): {"input", "output", "weight", "score"}.

    Weights are at most clamp (None: no limit), see `losses.rwr_weight`. Counts: rows, clamped (rows cut to
    the limit), no_opinion (outputs without a score). Raises HeedfulError for tau or clamp not above 0 and
    for weights that overflow.
    """
    if tau <= 0 or (clamp is not None and clamp <= 0):
        raise HeedfulError(f"reweight: tau and clamp must be above 0; they are {tau} and {clamp}")
    counts = {"rows": 0, "clamped": 0, "no_opinion": 0}
    triples = [(x, y, score) for x, scored in _scored(samples, feedback, counts) for y, score in scored]
    weights = rwr_weight(torch.tensor([s for *_, s in triples]), tau=tau, clamp=clamp).tolist()
    rows = []
    for (x, y, score), weight in zip(triples, weights, strict=True):
        if not math.isfinite(weight):
            raise HeedfulError(
                f"reweight: exp({score:g} / {tau:g}) is too large for a number; raise tau or set clamp"
            )
        counts["clamped"] += clamp is not None and score / tau > math.log(clamp)
        rows.append({"input": x, "output": y, "weight": weight, "score": score})
    counts["rows"] = len(rows)
    return Selection(rows, counts)


# ---- what they share

Scored = tuple[Any, float]


def _check(samples: Samples, feedback: Feedback) -> None:
    wanted = (len(samples.inputs), samples.n)
    if tuple(feedback.score.shape) != wanted:
        raise HeedfulError(
            f"feedback: score has shape {tuple(feedback.score.shape)}, but the samples have "
            f"{wanted[0]} inputs with {wanted[1]} outputs each; the judge must score all (NaN: no opinion)"
        )


def _scored(
    samples: Samples, feedback: Feedback, counts: dict[str, int]
) -> Iterator[tuple[Any, list[Scored]]]:
    """Each input with its scored outputs, in the order of sampling; the others are counted."""
    _check(samples, feedback)
    for i, (x, scores) in enumerate(zip(samples.inputs, feedback.score.tolist(), strict=True)):
        scored = [(y, s) for y, s in zip(samples.group(i), scores, strict=True) if not math.isnan(s)]
        counts["no_opinion"] += samples.n - len(scored)
        yield x, scored


def _better(samples: Samples, feedback: Feedback) -> list[Any]:
    _check(samples, feedback)
    if feedback.better is None:
        raise HeedfulError("this judge offers no better outputs to imitate; use a selector by score")
    return feedback.better


def _candidates(scored: list[Scored], how: How) -> Iterator[tuple[Scored, Scored]]:
    """Pairs of outputs, the higher score first; pairs of equal scores are among them, to be counted."""
    if how == "best_worst":
        yield max(scored, key=lambda pair: pair[1]), min(scored, key=lambda pair: pair[1])
    elif how == "all":
        for a, b in combinations(scored, 2):
            yield (a, b) if a[1] >= b[1] else (b, a)
    else:
        levels = [[p for p in scored if p[1] == s] for s in sorted({s for _, s in scored}, reverse=True)]
        for level in levels:
            yield from combinations(level, 2)
        for higher, lower in pairwise(levels):
            yield from product(higher, lower)


def _pairs_with_better(samples: Samples, feedback: Feedback, margin: float) -> Selection:
    if margin:
        raise HeedfulError("pairs: margin compares scores, and how='better' has none for the better output")
    rows: list[dict[str, Any]] = []
    counts = {"pairs": 0, "identical": 0, "no_opinion": 0}
    better = _better(samples, feedback)
    for i, (x, scores) in enumerate(zip(samples.inputs, feedback.score.tolist(), strict=True)):
        if better[i] is None:
            counts["no_opinion"] += 1
            continue
        for y, score in zip(samples.group(i), scores, strict=True):
            if _same(better[i], y):
                counts["identical"] += 1
            else:
                rows.append(_pair(x, better[i], y, None, None if math.isnan(score) else score))
    counts["pairs"] = len(rows)
    return Selection(rows, counts)


def _pair(x: Any, chosen: Any, rejected: Any, high: float | None, low: float | None) -> dict[str, Any]:
    return {
        "input": x,
        "chosen": chosen,
        "rejected": rejected,
        "margin": None if high is None or low is None else high - low,
        "chosen_score": high,
        "rejected_score": low,
    }


def _same(a: Any, b: Any) -> bool:
    """Whether two outputs are the same: arrays by value, everything else by its text."""
    if hasattr(a, "shape") and hasattr(b, "shape"):
        return a.shape == b.shape and bool((a == b).all())
    return str(a) == str(b)

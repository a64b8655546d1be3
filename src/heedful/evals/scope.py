"""Does one sentence of feedback hold where it applies, and nowhere else? The scores of C3PO (Stephan et al. 2024).

For each prompt h = adheres(tuned answer) - adheres(start model's answer) is -1, 0 or 1 (section 5.1). S_in is the
mean of h in scope; S_near and S_general are means of |h| on near-scope and general prompts, S_out is the mean of
those two, and S_overall = (S_in + 1 - S_out) / 2. Higher S_in and S_overall are better, lower S_out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heedful.data.scopes import KINDS
from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval, bootstrap, share
from heedful.evals.texts import repetition, words


def scores(
    h: Mapping[str, Sequence[int]], *, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """s_in, s_near, s_general, s_out and s_overall with intervals, from h of each kind of prompt.

    Prompts of each kind are resampled by themselves. Where all h of a kind are equal its own interval is the exact
    binomial one; that of s_out and s_overall is then too narrow by as much, so the parts are always told beside it.
    Raises HeedfulError when a kind has no prompts or an h is not -1, 0 or 1.
    """
    values = {}
    for kind in KINDS:
        part = np.asarray(h.get(kind, ()), dtype=float)
        if not len(part):
            raise HeedfulError(f"there are no {kind} prompts to score")
        if not np.isin(part, (-1, 0, 1)).all():
            raise HeedfulError(f"an h of the {kind} prompts is not -1, 0 or 1")
        values[kind] = part if kind == "in" else np.abs(part)
    how: dict[str, Any] = {"samples": samples, "level": level, "seed": seed}
    made = {
        "s_in": share(values["in"], **how) if (values["in"] >= 0).all() else bootstrap(values["in"], **how),
        "s_near": share(values["near"], **how),
        "s_general": share(values["general"], **how),
    }
    draws = {kind: _means(values[kind], samples, seed + i) for i, kind in enumerate(KINDS)}
    means = {kind: float(values[kind].mean()) for kind in KINDS}
    n = sum(map(len, values.values()))
    for name, of in (("s_out", _out), ("s_overall", _overall)):
        low, high = np.quantile(of(draws), [(1 - level) / 2, (1 + level) / 2])
        made[name] = Interval(float(of(means)), float(low), float(high), n)
    return made


def _out(means: Mapping[str, Any]) -> Any:
    return (means["near"] + means["general"]) / 2


def _overall(means: Mapping[str, Any]) -> Any:
    return (means["in"] + 1 - _out(means)) / 2


def _means(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Means of `samples` resamples, (samples,)."""
    draw = np.random.default_rng(seed).integers(0, len(values), size=(samples, len(values)))
    return values[draw].mean(-1)


def token_f1(before: str, after: str) -> float:
    """Overlap of two answers' words, 2 |both| / (|before| + |after|), counting repeats; 1 is the same words."""
    a, b = words(before), words(after)
    if not a and not b:
        return 1.0
    counts: dict[str, int] = {}
    for word in a:
        counts[word] = counts.get(word, 0) + 1
    shared = 0
    for word in b:
        if counts.get(word, 0) > 0:
            counts[word] -= 1
            shared += 1
    return 2 * shared / (len(a) + len(b))


def most_changed(rows: Sequence[Mapping[str, Any]], limit: int = 10) -> list[Mapping[str, Any]]:
    """The rows (of heldout.jsonl) whose answers changed most: adherence that flipped first, then the least F1."""

    def order(row: Mapping[str, Any]) -> tuple[float, float]:
        before, after = row["before"], row["after"]
        flipped = abs((after.get("score") or 0) - (before.get("score") or 0))
        return (-flipped, token_f1(before["text"], after["text"]))

    return sorted(rows, key=order)[:limit]


def repetition_rate(texts: Sequence[str]) -> float:
    """Mean share of repeated word trigrams; it rises when an answer loops."""
    return float(np.mean([repetition(text) for text in texts])) if texts else 0.0

"""What changed in the answers of a language model: before/after rows and signs of reward hacking.

Everything is averaged per prompt first and compared on the same held-out prompts; intervals come from
`heedful.evals.intervals`. Rows follow the `comparisons` part of report.json: shares are fractions between 0
and 1, `change` is after - before, `interval` is the interval of that change, and a value that cannot be known
is None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from heedful.errors import HeedfulError
from heedful.evals.hacking import collapse, hacking_signs
from heedful.evals.intervals import Interval, bootstrap, kl_to_start, paired_bootstrap, per_prompt, win_rate
from heedful.evals.texts import (
    TEXT_MEASURES,
    VERY_SHORT,
    Answers,
    content_words,
    ends_in_sentence,
    measure,
    overlap,
    overlaps,
    paired_answers,
    prompt_text,
    question_echo,
    repetition,
    sentence_count,
    words,
)

__all__ = [
    "VERY_SHORT",
    "collapse",
    "compare",
    "content_words",
    "ends_in_sentence",
    "hacking_signs",
    "heldout_rows",
    "implicit_rewards",
    "interval_row",
    "key_of",
    "measure",
    "overlap",
    "pick_samples",
    "prompt_text",
    "question_echo",
    "repetition",
    "row",
    "sentence_count",
    "words",
]


def compare(
    prompts: Sequence[Any],
    before: Answers,
    after: Answers,
    before_scores: Any = None,
    after_scores: Any = None,
    *,
    logp_after: Any = None,
    logp_start: Any = None,
    score_name: str = "judge score",
    directions: Mapping[str, str] | None = None,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Before/after rows for report.json, on held-out prompts.

    Scores are (B,) or (B, N), NaN = no opinion, higher is better. `logp_after` and `logp_start` are the
    summed log-probabilities, under both models, of the completions `after` (which must be sampled at
    temperature 1); they add the KL row. `directions` says what is better where the job decides that, such as
    {"answer length": "lower"}. Raises HeedfulError when the lengths differ or when only one of a pair of
    arguments is given.
    """
    befores, afters = paired_answers(before, after, prompts)
    how: dict[str, Any] = {"samples": samples, "level": level, "seed": seed}
    rows = []
    if (before_scores is None) != (after_scores is None):
        raise HeedfulError("scores are needed before and after, or not at all")
    if before_scores is not None:
        for side, scores in (("before_scores", before_scores), ("after_scores", after_scores)):
            if len(scores) != len(prompts):
                raise HeedfulError(f"{side} has {len(scores)} entries for {len(prompts)} prompts")
        b, a = per_prompt(before_scores, name="before_scores"), per_prompt(after_scores, name="after_scores")
        if np.isnan(a - b).all():
            note = "no prompt has a score on both sides"
            rows.append(_plain(score_name, None, None, "higher", "score", note))
        else:
            rows += _score_rows(score_name, before_scores, after_scores, how)
    for name, better, unit, of, note in _MEASURES:
        b, a = ([[of(t) for t in r] for r in side] for side in (befores, afters))
        rows.append(row(name, b, a, better=better, unit=unit, note=note, **how))
    echoes = [[[question_echo(p, t) for t in r] for p, r in zip(prompts, side)] for side in (befores, afters)]
    if _any_pair(*echoes):
        note = "share of the answer's content words taken from the question"
        rows.append(row("question echo", *echoes, better="none", unit="share", note=note, **how))
    rows.append(_overlap_row(befores, afters, how))
    b, a = collapse(befores), collapse(afters)
    note = "answers that another prompt received word for word"
    rows.append(_plain("identical answers", b, a, "lower", "share", note))
    if (logp_after is None) != (logp_start is None):
        raise HeedfulError("logp_after and logp_start are needed together")
    if logp_after is not None:
        kl = kl_to_start(logp_after, logp_start, **how)
        note = _left_out("estimated from sampled completions, per completion", kl)
        rows.append(interval_row("KL to the start model", 0.0, kl, "none", "nats", note))
    for name, better in (directions or {}).items():
        found = [r for r in rows if r["name"] == name]
        if not found or better not in ("higher", "lower", "none"):
            raise HeedfulError(
                f"directions: {name!r}: {better!r} names no row or is not higher, lower or none"
            )
        found[0]["better"] = better
    return rows


def _score_rows(name: str, before: Any, after: Any, how: dict[str, Any]) -> list[dict[str, Any]]:
    rate = win_rate(before, after, **how)
    note = _left_out("ties count half; 50% means no difference", rate)
    return [
        row(name, before, after, better="higher", unit="score", **how),
        interval_row("win rate", 0.5, rate.shifted(-0.5), "higher", "share", note),
    ]


def row(
    name: str, before: Any, after: Any, *, better: str, unit: str = "", note: str = "", **how: Any
) -> dict[str, Any]:
    """One `comparisons` row from per-prompt values, with the paired bootstrap interval of the change."""
    b, a = per_prompt(before, name="before"), per_prompt(after, name="after")
    change = paired_bootstrap(b, a, **how)
    both = ~np.isnan(b) & ~np.isnan(a)
    # Both means over the same prompts, so that after - before is exactly the change shown.
    return interval_row(name, float(b[both].mean()), change, better, unit, _left_out(note, change))


def interval_row(
    name: str, before: float, change: Interval, better: str, unit: str, note: str
) -> dict[str, Any]:
    """One `comparisons` row from a value before and the interval of its change."""
    result = _plain(name, before, before + change.estimate, better, unit, note)
    return {**result, "change": change.estimate, "interval": change.bounds()}


def key_of(name: str) -> str:
    """The key of a row's name in result.json: "win rate" gives win_rate, "h_w (chosen)" gives h_w."""
    plain = re.sub(r"\(.*?\)", "", name).replace("−", " minus ").lower()
    return re.sub(r"\W+", "_", plain).strip("_")


def implicit_rewards(
    h_w: Any,
    h_l: Any,
    *,
    before_h_w: Any = None,
    before_h_l: Any = None,
    seed: int = 0,
    samples: int = 10_000,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and warnings from implicit rewards on held-out pairs, each (B,), in nats (beta not applied).

    h_w = log pi(chosen) - log ref(chosen), h_l likewise for rejected. Before training the policy is the
    reference, so both are zero unless given. A falling h_w means the model moves away from the answers it
    should prefer, which DPO permits as long as h_l falls faster (Tajwar et al. 2024, "Preference Fine-Tuning
    of LLMs Should Leverage Suboptimal, On-Policy Data").
    """
    w, lose = per_prompt(h_w, name="h_w"), per_prompt(h_l, name="h_l")
    w0 = np.zeros_like(w) if before_h_w is None else per_prompt(before_h_w, name="before_h_w")
    l0 = np.zeros_like(lose) if before_h_l is None else per_prompt(before_h_l, name="before_h_l")
    if not len(w) == len(lose) == len(w0) == len(l0):
        raise HeedfulError(
            f"h_w and h_l must be of the same pairs: {len(w)}, {len(lose)}, {len(w0)}, {len(l0)} values"
        )
    how: dict[str, Any] = {"seed": seed, "samples": samples}
    chosen = row(
        "h_w (chosen)", w0, w, better="higher", unit="nats", note="implicit reward of chosen answers", **how
    )
    rejected = row("h_l (rejected)", l0, lose, better="none", unit="nats", note="of rejected answers", **how)
    margin = row("h_w − h_l", w0 - l0, w - lose, better="higher", unit="nats", note="implicit margin", **how)
    known = ~np.isnan(w - lose) & ~np.isnan(w0 - l0)
    right, right0 = ((np.sign(x) + 1) / 2 for x in ((w - lose)[known], (w0 - l0)[known]))
    note = "pairs with h_w > h_l; ties count half"
    accuracy = row("preference accuracy", right0, right, better="higher", unit="share", note=note, **how)
    warnings = []
    if chosen["change"] < 0:
        sure = chosen["interval"] is not None and chosen["interval"][1] < 0
        doubt = "" if sure else " (its interval still includes zero)"
        warnings.append(
            f"h_w fell by {-chosen['change']:.3g} nats{doubt}: chosen answers became less likely than under "
            "the reference. Fewer steps, a larger beta, on-policy pairs or a likelihood term prevent it."
        )
    return [chosen, rejected, margin, accuracy], warnings


def heldout_rows(
    prompts: Sequence[Any],
    before: Answers,
    after: Answers,
    before_scores: Any = None,
    after_scores: Any = None,
    before_notes: Sequence[str] | None = None,
    after_notes: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Rows for heldout.jsonl: {"prompt", "before": {"text", "score", "words", "notes"}, "after": {...}}.

    One row per prompt and sample; several samples of one prompt need equally many on both sides. Notes are
    flat, input-major, as in Feedback. A NaN score becomes None, because JSON has no NaN.
    """
    befores, afters = paired_answers(before, after, prompts)
    scores = [None if s is None else [_floats(x) for x in s] for s in (before_scores, after_scores)]
    rows, flat = [], 0
    for i, (prompt, b, a) in enumerate(zip(prompts, befores, afters)):
        if len(b) != len(a):
            raise HeedfulError(
                f"prompt {i} has {len(b)} answers before and {len(a)} after; one row needs one of each"
            )
        for j in range(len(b)):
            item: dict[str, Any] = {"prompt": prompt}
            sides = (("before", b, scores[0], before_notes), ("after", a, scores[1], after_notes))
            for side, texts, score, notes in sides:
                value = math.nan if score is None else score[i][j]
                item[side] = {
                    "text": str(texts[j]),
                    "score": None if math.isnan(value) else value,
                    "words": len(words(str(texts[j]))),
                    "notes": notes[flat] if notes else "",
                }
            rows.append(item)
            flat += 1
    return rows


def pick_samples(
    rows: Sequence[dict[str, Any]], limit: int = 24, group: str = "held-out"
) -> list[dict[str, Any]]:
    """Samples for report.json, evenly spaced in the change of score, so wins AND losses show.

    The largest gain and the largest loss are always among them; unscored rows come last.
    """
    scored = [r for r in rows if r["before"].get("score") is not None and r["after"].get("score") is not None]
    scored.sort(key=lambda r: r["before"]["score"] - r["after"]["score"])
    rest = [r for r in rows if r["before"].get("score") is None or r["after"].get("score") is None]
    if len(scored) > limit:
        scored = [scored[i] for i in np.unique(np.linspace(0, len(scored) - 1, limit).round().astype(int))]
    chosen = (scored + rest)[:limit]
    keep = ("text", "score", "notes")
    return [
        {
            "input": prompt_text(r["prompt"]),
            "before": {k: r["before"].get(k) for k in keep},
            "after": {k: r["after"].get(k) for k in keep},
            "group": group,
        }
        for r in chosen
    ]


_MEASURES: list[tuple[str, str, str, Callable[[str], float], str]] = [
    ("answer length", "none", "words", TEXT_MEASURES["words"], ""),
    ("sentences", "none", "per answer", TEXT_MEASURES["sentences"], ""),
    ("very short answers", "lower", "share", TEXT_MEASURES["very_short"], f"under {VERY_SHORT} words"),
    ("ends in a sentence", "higher", "share", TEXT_MEASURES["ends_in_sentence"], "last mark is . ! or ?"),
    ("repetition", "lower", "share", repetition, "word trigrams that occurred before"),
]


def _overlap_row(befores: list[list[str]], afters: list[list[str]], how: dict[str, Any]) -> dict[str, Any]:
    name, note = "overlap with start answers", "content words of the start model's answers that are kept"
    own, kept = overlaps(befores, befores, same=True), overlaps(befores, afters)
    if _any_pair(own, kept):
        return row(
            name, own, kept, better="none", unit="share", note=f"{note}; before: its own samples", **how
        )
    after = bootstrap(kept, **how).estimate if _any_pair(kept, kept) else None
    return _plain(name, None, after, "none", "share", note)


def _any_pair(before: list[list[float]], after: list[list[float]]) -> bool:
    return not np.isnan(per_prompt(before) + per_prompt(after)).all()


def _floats(value: Any) -> list[float]:
    value = value.tolist() if hasattr(value, "tolist") else value
    return [
        math.nan if v is None else float(v) for v in (value if isinstance(value, (list, tuple)) else [value])
    ]


def _left_out(note: str, interval: Interval) -> str:
    missing = f"{interval.missing} of {interval.n + interval.missing} prompts without a score left out"
    return "; ".join(part for part in (note, missing if interval.missing else "") if part)


def _plain(
    name: str, before: float | None, after: float | None, better: str, unit: str, note: str
) -> dict[str, Any]:
    before, after = (None if v is None or math.isnan(v) else v for v in (before, after))
    change = None if before is None or after is None else after - before
    return {
        "name": name,
        "before": before,
        "after": after,
        "change": change,
        "interval": None,
        "better": better,
        "unit": unit,
        "note": note,
    }

"""What `heedful compare-methods` advises: one function for each question, a sentence with the figures it rests on.

A sentence takes a side only where the interval does (see `compare_figures.Gap`); else it says undecided. What no pair
of methods can tell is left out.

Letters: S seeds, P held-out prompts, N samples of a prompt, K held-out pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from heedful.evals.intervals import Interval, bootstrap, per_prompt, share
from heedful.recipes.compare_figures import (
    Advice,
    Array,
    Figures,
    Gap,
    best_of,
    figures_of,
    gap,
    mean_of,
    told,
)
from heedful.recipes.compare_plan import Arm

OPEN = "undecided"
SOURCE = "Tajwar et al. 2024"


def advise(found: Figures) -> list[Advice]:
    """Everything that the figures can tell, the choice of a method first."""
    parts: list[Callable[[Figures], list[Advice]]] = [
        winner,
        peak,
        on_policy,
        negative_gradient,
        close_pairs,
        freshness,
        hollow_gains,
    ]
    return [advice for part in parts for advice in part(found)]


# ---- the choice


def winner(found: Figures) -> list[Advice]:
    """Which method is best, and which of the others cannot be told apart from it.

    The intervals against the others are at 1 - .05 / (methods - 1), since there are so many (Bonferroni).
    """
    best = best_of(found)
    gain = gap(found.start, found.scores[best], seed=found.seed)
    others = [label for label in found.scores if label != best]
    level = 1 - 0.05 / max(1, len(others))
    gaps = {
        label: gap(found.scores[label], found.scores[best], seed=found.seed, level=level) for label in others
    }
    tied = [label for label, lead in gaps.items() if lead.side <= 0]
    rate = f" at learning rate {found.rates[best]:g}" if best in found.rates else ""
    figures = figures_of("change", gain.interval) | {
        f"lead over {a}": g.interval.estimate for a, g in gaps.items()
    }
    if gain.side <= 0:
        text = (
            f"No method is shown to raise the {found.measure}: the highest, {best}{rate}, changed it by {gain}. "
            "Keep the start model, or try a larger budget or other learning rates."
        )
        return [Advice("method", OPEN if not gain.side else "none", text, figures)]
    text = f"{best}{rate} raised the {found.measure} most, by {gain} over the start model"
    if not others:
        return [Advice("method", best, f"{text}.", figures)]
    if not tied:
        nearest = min(gaps, key=lambda label: gaps[label].interval.estimate)
        return [
            Advice(
                "method",
                best,
                f"{text}; the next, {nearest}, is behind by {gaps[nearest]}. Use {best}.",
                figures,
            )
        ]
    text += f"; it cannot be told apart from {', '.join(f'{label} ({gaps[label]})' for label in tied)}"
    cheaper = [
        label for label in tied if found.seconds.get(label, math.inf) < found.seconds.get(best, math.inf)
    ]
    if cheaper:
        quick = min(cheaper, key=lambda label: found.seconds[label])
        times = f"{found.seconds[quick]:.3g} s against {found.seconds[best]:.3g} s"
        text += f". Of these {quick} took the least time ({times})"
    return [Advice("method", OPEN, f"{text}.", figures)]


# ---- where the reward's peak is


def peak(found: Figures) -> list[Advice]:
    """Whether answers as good as the best method's lie within the start model's reach: condition C1 of the paper.

    The level is the mean judge score of the best method's answers to a prompt, a lower bound of the reward's peak.
    Measured is how much of the start model's own distribution lies at that level or above it. Far is less than one in
    N, the samples drawn: then the best of N as a rule has none.
    """
    best = max(found.judged, key=lambda label: mean_of(found.judged[label]))
    gain = gap(found.judged_start, found.judged[best], seed=found.seed)
    level = per_prompt(np.asarray(found.judged[best]).T)
    n = found.probe.shape[1]
    known = ~np.isnan(found.probe)
    # NaN compares as false: a sample without an opinion counts as neither
    reached = np.where(known, (found.probe >= level[:, None]).astype(float), np.nan)
    reached[np.isnan(level)] = np.nan
    mass = share(reached, seed=found.seed)
    top = np.array([row.max(initial=-math.inf, where=~np.isnan(row)) for row in found.probe])
    top = float(np.mean(top[np.isfinite(top)]))
    figures = {
        **figures_of("start_mass_at_best_level", mass),
        "start_mean": mean_of(found.probe.T),
        f"start_best_of_{n}": top,
        "best_method_mean": mean_of(found.judged[best]),
    }
    where = (
        f"{_percent(mass)} of the start model's own answers score as high as {best}'s do on average (judge score: "
        f"start {figures['start_mean']:.3g}, best of {n} {top:.3g}, {best} {figures['best_method_mean']:.3g})"
    )
    if gain.side <= 0:
        text = (
            f"No method surely raised the judge's score, so where the reward's peak lies is {OPEN} ({where})."
        )
        return [Advice("peak", OPEN, text, figures)]
    measured = any(_same_but_mode(found.arms[a], found.arms[b]) for a, b in combinations(found.scores, 2))
    if mass.known and mass.high < 1 / n:
        hint = "" if measured else f" Expect on-policy sampling to pay ({SOURCE})."
        text = f"The reward's peak is far from the start model: {where}, fewer than one in {n}.{hint}"
        return [Advice("peak", "far", text, figures)]
    if mass.known and mass.low > 1 / n:
        hint = "" if measured else f" Expect little of on-policy sampling over good offline data ({SOURCE})."
        text = f"The reward's peak is within the start model's reach: {where}, more than one in {n}.{hint}"
        return [Advice("peak", "near", text, figures)]
    return [
        Advice(
            "peak",
            OPEN,
            f"Whether the reward's peak is far from the start model is {OPEN}: {where}.",
            figures,
        )
    ]


def _percent(mass: Interval) -> str:
    if not mass.known:
        return f"{mass.estimate:.1%}"
    return f"{mass.estimate:.1%} ({mass.low:.1%} to {mass.high:.1%})"


# ---- contrasts between methods


def _contrast(found: Figures, couples: Sequence[tuple[list[str], list[str]]]) -> Gap | None:
    """The mean score of the second list of each couple less that of the first, averaged over couples."""
    if not couples:
        return None

    def mean(labels: list[str]) -> Array:
        return np.mean([found.scores[label] for label in labels], axis=0)

    sides = [[mean(couple[i]) for couple in couples] for i in (0, 1)]
    return gap(np.mean(sides[0], axis=0), np.mean(sides[1], axis=0), seed=found.seed)


def _same_but_mode(a: Arm, b: Arm) -> bool:
    return (a.method, a.options) == (b.method, b.options)


def on_policy(found: Figures) -> list[Advice]:
    """Online less offline, over the methods that were run both ways with the same options."""
    couples = [
        ([b], [a]) if found.arms[a].online else ([a], [b])
        for a, b in combinations(found.scores, 2)
        if _same_but_mode(found.arms[a], found.arms[b])
    ]
    gained = _contrast(found, couples)
    if gained is None:
        return []
    both = _listed([online.replace(":online", "", 1) for _, (online, *_) in couples])
    about = f"online less offline {gained} in {found.measure}, over {both}"
    text = {
        1: f"Sampling on-policy paid at equal budget ({about}).",
        -1: f"Sampling on-policy cost more than it gave at equal budget ({about}): learn from --data as it is.",
        0: f"Whether sampling on-policy pays is {OPEN} ({about}).",
    }[gained.side]
    return [
        Advice(
            "on_policy",
            _verdict(gained, "paid", "cost"),
            text,
            figures_of("online_less_offline", gained.interval),
        )
    ]


def negative_gradient(found: Figures) -> list[Advice]:
    """Methods that push bad answers down less those that only imitate good ones, in the same mode."""
    couples = []
    for online in (True, False):
        here = [label for label in found.scores if found.arms[label].online == online]
        sides = [[label for label in here if found.arms[label].pushes_down is down] for down in (False, True)]
        if all(sides):
            couples.append((sides[0], sides[1]))
    gained = _contrast(found, couples)
    if gained is None:
        return []
    with_it = _listed([label for couple in couples for label in couple[1]])
    without = _listed([label for couple in couples for label in couple[0]])
    about = f"{with_it} less {without}: {gained} in {found.measure}"
    text = {
        1: f"Pushing bad answers down paid ({about}): prefer a method with a negative gradient.",
        -1: f"Pushing bad answers down cost score ({about}): prefer imitation of good answers.",
        0: f"Whether a negative gradient pays is {OPEN} ({about}).",
    }[gained.side]
    return [
        Advice(
            "negative_gradient", _verdict(gained, "paid", "cost"), text, figures_of("gain", gained.interval)
        )
    ]


def freshness(found: Figures) -> list[Advice]:
    """Methods that differ in nothing but `rounds=` (how stale samples get) or `epochs=` (how often they are reused)."""
    made = []
    for knob, about, more in (
        ("rounds", "staleness", "fresher samples (more rounds at equal samples and steps)"),
        ("epochs", "reuse", "more reuse (more passes over fewer samples at equal steps)"),
    ):
        for a, b in combinations(found.scores, 2):
            one, two = found.arms[a], found.arms[b]
            if one.without(knob) != two.without(knob):
                continue
            values = [dict(arm.options).get(knob, found.usual[knob]) for arm in (one, two)]
            low, high = (a, b) if values[0] < values[1] else (b, a)
            gained = gap(found.scores[low], found.scores[high], seed=found.seed)
            figures = figures_of("gain", gained.interval)
            text = {1: "paid", -1: "cost score", 0: f"made a difference is {OPEN}"}[gained.side]
            begin = "Whether " if not gained.side else ""
            sentence = f"{begin}{more} {text}: {high} less {low} {gained} in {found.measure}."
            made.append(
                Advice(about, _verdict(gained, "paid", "cost"), sentence[0].upper() + sentence[1:], figures)
            )
    return made


# ---- pairs


def close_pairs(found: Figures) -> list[Advice]:
    """Whether h_w fell on held-out pairs, and the more so the closer the two answers are (Figure 16 of the paper).

    Of contrastive methods the offline ones, which learned from such pairs, or where there is none all. The relation is
    the rank correlation over pairs of the token overlap with h_w; its interval is a bootstrap over prompts.
    """
    labels = [label for label in found.rewards if not found.arms[label].online] or list(found.rewards)
    if not labels or not found.pairs:
        return []
    h = np.mean([found.rewards[label] for label in labels], axis=0)
    prompts = [row["prompt"] for row in found.pairs]
    seeds = np.array([row["seed"] for row in found.pairs])
    overlap = np.array([row["overlap"] for row in found.pairs])
    distance = np.array([abs(row["gap"]) / (row["tokens"] / 2) for row in found.pairs])
    interval = bootstrap(h[:, 0], groups=prompts, seed=found.seed)
    signs = {float(np.sign(h[seeds == seed, 0].mean())) for seed in set(seeds.tolist())}
    fall = Gap(interval, signs == {float(np.sign(interval.estimate))})
    close = overlap >= np.median(overlap)
    figures = {
        **figures_of("h_w", interval),
        "h_l": float(h[:, 1].mean()),
        "token_overlap": float(np.median(overlap)),
        "logp_gap_per_token": float(np.median(distance)),
        "h_w_closer_half": float(h[close, 0].mean()),
    }
    if not close.all():
        figures["h_w_farther_half"] = float(h[~close, 0].mean())
    about = (
        f"chosen and rejected share {figures['token_overlap']:.0%} of their tokens and lie "
        f"{figures['logp_gap_per_token']:.2g} nats a token apart under the start model"
    )
    with_it = f"{interval.estimate:+.3g} nats" if not interval.known else f"{told(interval)} nats"
    of = f"{with_it} on held-out pairs, over {_listed(labels)}"
    if not fall.side:
        return [Advice("close_pairs", OPEN, f"Whether h_w falls is {OPEN}: {of}; {about}.", figures)]
    if fall.side > 0:
        text = f"h_w rose ({of}): chosen answers became likelier, though {about}."
        return [Advice("close_pairs", "rose", text, figures)]
    text = f"h_w fell ({of}): chosen answers became less likely"
    relation = _rank_correlation(overlap, h[:, 0], prompts, found.seed)
    if relation is not None:
        figures |= figures_of("overlap_with_h_w", relation)
    if relation is None or not relation.excludes_zero:
        why = "" if relation is None else f" (rank correlation of overlap and h_w {told(relation, '+.2f')})"
        text += f". Whether that is because pairs are close is {OPEN}{why}; {about}."
        return [Advice("close_pairs", "fell", text, figures)]
    if relation.estimate > 0:
        text += (
            ", but less so the closer the pair (rank correlation of overlap and h_w "
            f"{told(relation, '+.2f')}), so that closeness is not the reason; {about}."
        )
        return [Advice("close_pairs", "fell_on_distant_pairs", text, figures)]
    text += (
        ", and the more so the closer the pair (rank correlation of overlap and h_w "
        f"{told(relation, '+.2f')}); {about}. Expect it to fall further with more steps; "
        "pairs that differ more, fewer steps, or imitation of the chosen answers hold it up."
    )
    return [Advice("close_pairs", "fell_on_close_pairs", text, figures)]


def _rank_correlation(a: Array, b: Array, prompts: Sequence[str], seed: int) -> Interval | None:
    """Spearman's, as a mean over pairs of products of standardised ranks; None where one side is constant."""
    ranks = [_ranks(values) for values in (a, b)]
    if any(np.ptp(values) == 0 for values in ranks):
        return None
    x, y = ((values - values.mean()) / values.std() for values in ranks)
    found = bootstrap(x * y, groups=prompts, seed=seed)
    return replace(found, low=max(-1.0, found.low), high=min(1.0, found.high)) if found.known else found


def _ranks(values: Array) -> Array:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]


# ---- the judge


def hollow_gains(found: Figures) -> list[Advice]:
    """Whether what the judge sees as a gain is one by the gold judge too; nothing without a gold judge."""
    if found.measure == "judge score":
        return []
    sides: dict[int, list[str]] = {1: [], 0: [], -1: []}
    figures: dict[str, float] = {}
    for label in found.scores:
        judged = gap(found.judged_start, found.judged[label], seed=found.seed)
        if judged.side > 0:
            gold = gap(found.start, found.scores[label], seed=found.seed)
            sides[gold.side].append(f"{label} (judge {judged}, gold {gold})")
            figures |= figures_of(f"gold change of {label}", gold.interval)
    if sides[-1]:
        text = f"The judge is being gamed: its score rose and the gold score fell for {_listed(sides[-1])}."
        return [Advice("gold", "hollow", text, figures)]
    if sides[0]:
        text = f"Whether the judge's gain is one by the gold judge is {OPEN} for {_listed(sides[0])}."
        return [Advice("gold", OPEN, text, figures)]
    if sides[1]:
        text = f"The judge's gain is one by the gold judge too, for {_listed(sides[1])}."
        return [Advice("gold", "real", text, figures)]
    return []


def _verdict(gained: Gap, better: str, worse: str) -> str:
    return {1: better, -1: worse, 0: OPEN}[gained.side]


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:-1]) + (" and " if len(labels) > 1 else "") + labels[-1]

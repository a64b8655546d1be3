"""What the bandit runs say of the paper's claims, computed from the results alone.

Every comparison is one of the same seed, so of the same contexts, pi_data, pi_ref and first samples; its interval is
Student's over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

from heedful.papers.onpolicy_bandit import ABLATED, GAP, SIZES
from heedful.papers.onpolicy_driver import LABELS
from heedful.papers.onpolicy_world import Name
from heedful.papers.results import Claim, Tier
from heedful.papers.seeds import Done, Get, Result, claim

WORLDS: dict[Name, str] = {"context": "One action", "tokens": "Ten tokens"}
SAMPLES = 1000
"""Scored samples at which runs that draw anew are compared: as many as an offline run has."""
SMALL = 0.1
"""Largest difference of rewards that counts as small."""
ASSERTED = "a headline of the paper; no number for this world"
REPORTED = "reported, not expected: an earlier probe of ours with one action found it not robust"


def last(result: Result) -> float:
    """The expected reward at the end."""
    return result["reward"][-1]


def over_run(result: Result) -> float:
    """The expected reward, a mean over the run: high when it is learned fast and stays."""
    return fmean(result["reward"][1:])


def after(result: Result, samples: int) -> float:
    """The expected reward when at most so many samples had been scored."""
    return [reward for reward, scored in zip(result["reward"], result["samples"]) if scored <= samples][-1]


# ---- claims


def claims(done: Done, tier: Tier, seeds: Sequence[int]) -> list[Claim]:
    """All claims, of one action first."""
    return [claim for world in WORLDS for claim in _claims(world, done, tier, seeds)]


def _claims(world: Name, done: Done, tier: Tier, seeds: Sequence[int]) -> Iterator[Claim]:
    optimal, mode, online = (
        f"{world} {key}" for key in ("optimal offline", "mode offline", "optimal online")
    )
    gap = " gap" if world == "context" else ""
    told = f", pairs at least {GAP:g} apart" if gap else ""
    size = SIZES[tier][world]

    def say(text: str, paper: str, value: Callable[[Get], float], note: str = "", **limit: Any) -> Claim:
        return claim(f"{WORLDS[world]}: {text}", paper, value, done, tier, seeds, note=note, **limit)

    for method in ("ipo", "dpo"):
        yield say(
            f"where the reward peaks off pi_ref, offline {LABELS[method]} ends higher than BoN (measured: the lead)",
            ASSERTED,
            lambda get, m=method: last(get(optimal + gap, m)) - last(get(optimal, "bon")),
            f"{size.prompts} prompts with 10 outputs each{told}",
        )
    yield say(
        "on the same pairs, all of them, offline IPO and DPO end higher than Pref-FT (measured: the smaller lead)",
        ASSERTED,
        lambda get: min(last(get(optimal, m)) for m in ("ipo", "dpo")) - last(get(optimal, "pref_ft")),
    )
    for method in ("bon", "dpo", "ipo"):
        pairs = gap if method != "bon" else ""
        yield say(
            f"{LABELS[method]} gets further with samples of the policy itself than with as many of pi_ref (measured: "
            "the lead)",
            ASSERTED,
            lambda get, m=method, key=optimal + pairs: after(get(online, m), SAMPLES) - last(get(key, m)),
            f"after {SAMPLES} samples each, on policy those of 10 prompts in {SAMPLES // 100} rounds"
            + (f"; offline, {told.removeprefix(', ')}" if pairs else ""),
        )
    few, many = size.staleness[0], size.staleness[-1]
    for method in ABLATED:
        yield say(
            f"{LABELS[method]} learns slower when the samples of many steps are drawn at once, with as many for each "
            "step (measured: what fresh ones are ahead, mean reward over the run)",
            ASSERTED,
            lambda get, m=method: (
                over_run(get(f"{world} B {few}", m)) - over_run(get(f"{world} B {many}", m))
            ),
            f"samples of {many} steps of 100, against those of one; {size.stale_steps} steps",
        )
    for method in ABLATED:
        yield say(
            f"{LABELS[method]} gets further per sample when it learns more than once from it (measured: the lead)",
            ASSERTED,
            lambda get, m=method: after(get(online, m), SAMPLES) - after(get(f"{world} T 1", m), SAMPLES),
            f"T = {size.reuse} against T = 1, after {SAMPLES} samples",
        )
    for method in ("ppo", "ipo") if size.budgets else ():
        yield say(
            f"with as many samples and steps in all, {LABELS[method]} gets further when samples are renewed after each "
            "step than when all are drawn at the start (measured: the lead, mean reward over the run)",
            ASSERTED,
            lambda get, m=method: (
                over_run(get(f"{world} budget {size.budgets[0]}", m))
                - over_run(get(f"{world} budget {size.budgets[-1]}", m))
            ),
            f"the data-budget ablation, T = {size.budgets[0]} against T = {size.budgets[-1]}",
        )
    yield say(
        f"where the reward peaks on pi_ref, offline IPO and DPO are within {SMALL} of BoN (measured: the larger "
        "difference)",
        ASSERTED,
        lambda get: max(abs(last(get(mode + gap, m)) - last(get(mode, "bon"))) for m in ("ipo", "dpo")),
        told.removeprefix(", "),
        bound=SMALL,
        above=False,
    )
    yield say(
        "offline IPO's lead over BoN is larger where the reward peaks off pi_ref than where it peaks on it (measured: "
        "by how much)",
        ASSERTED,
        lambda get: (
            (last(get(optimal + gap, "ipo")) - last(get(optimal, "bon")))
            - (last(get(mode + gap, "ipo")) - last(get(mode, "bon")))
        ),
        told.removeprefix(", "),
    )
    if world == "context":
        yield say(
            "the more prompts, the less offline IPO raises the winners' probability (measured: change of h_w in nats "
            "for ten times the prompts)",
            "Figure 16, a trend",
            lambda get: _slope(get, size.counts, size.prompts),
            f"{', '.join(map(str, sorted((*size.counts, size.prompts))))} prompts{told}",
            above=False,
        )
        for method in ("ipo", "dpo"):
            yield say(
                f"on the same pairs, those at least {GAP:g} apart, offline {LABELS[method]} ends higher than Pref-FT "
                "(measured: the lead)",
                "our question: is it the negative gradient or the choice of pairs that beats BoN?",
                lambda get, m=method: last(get(optimal + gap, m)) - last(get(optimal + gap, "pref_ft")),
            )
    yield say(
        "offline IPO ends higher than RWR, which has no negative gradient either (measured: the lead)",
        REPORTED,
        lambda get: last(get(optimal + gap, "ipo")) - last(get(optimal, "rwr")),
        "tau is tuned; a sharp one lets RWR see how large a reward is, which pairs do not tell",
    )
    yield say(
        "on-policy IPO learns faster than on-policy BoN (measured: the lead, mean reward over the run)",
        REPORTED,
        lambda get: over_run(get(online, "ipo")) - over_run(get(online, "bon")),
        "each at its own tuned learning rate",
    )


def _slope(get: Get, counts: Sequence[int], base: int) -> float:
    """Least-squares slope of the last h_w over log10 of the number of prompts; NaN with fewer than three of them."""
    points = []
    for count in sorted((*counts, base)):
        key = "context optimal offline gap" if count == base else f"context prompts {count}"
        h_w = get(key, "ipo")["h_w"][-1]
        if h_w is not None:  # few prompts may hold no pair that is far enough apart
            points.append((math.log10(count), h_w))
    if len(points) < 3:
        return math.nan
    middle = fmean(x for x, _ in points), fmean(y for _, y in points)
    over = math.fsum((x - middle[0]) * (y - middle[1]) for x, y in points)
    return over / math.fsum((x - middle[0]) ** 2 for x, _ in points)

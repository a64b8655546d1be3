"""The claims of Yell At Your Robot, from the results of arms alone.

A value is made of means over a seed's episodes, which are the same for all arms; intervals are two-level bootstraps
over seeds and episodes, and a claim is decided where all seeds agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heedful.papers.leret_intervals import Means, Value, over_all, settled
from heedful.papers.results import Claim, Tier
from heedful.papers.seeds import NO_LEAD, Done
from heedful.papers.yay_sizes import FEW, NAMES, SETUP

NOTES = "no number at hand: the paper's text was not"
SMOKE = "not in the smoke tier, whose policies have learned next to nothing"


def gain(arm: str, over: str, name: str = "success") -> Value:
    """How much more of a measure an arm has than another, on the episodes that both have."""
    few = "few " if arm in FEW or over in FEW else ""
    return lambda mean: mean(arm, few + name) - mean(over, few + name)


def fall(mean: Means) -> np.ndarray:
    """By which share a person says less after the last round than before the first."""
    return 1 - mean("live-3", "interventions") / mean("live", "interventions")


@dataclass(frozen=True)
class Rule:
    """A claim: its value lies above `bound`, and that of `also`, if any, is not below zero on average.

    also: what is meant, and its value; without it a value may look good for a bad reason.
    """

    text: str
    paper: str
    value: Value
    bound: float
    also: tuple[str, Value] | None = None


RULES: tuple[Rule, ...] = (
    Rule(
        "with a person who corrects it, the pair does the task in at least 20 points more of the episodes (measured: "
        "the gain)",
        "15% to 50% on bags, 35 points (from notes)",
        gain("live", "base"),
        0.20,
    ),
    Rule(
        "after three rounds it does the task by itself in at least 15 points more of the episodes than before "
        "(measured: the gain)",
        "15% to 45% on bags, 30 points (from notes)",
        gain("post-3", "base"),
        0.15,
    ),
    Rule(
        "the rounds are better than as many steps without corrections (measured: the lead)",
        "a control of ours",
        gain("post-3", "equal"),
        NO_LEAD,
    ),
    Rule(
        "after three rounds a person says at least 30% less in an episode, and the task is done no less often "
        "(measured: by which share less)",
        NOTES,
        fall,
        0.30,
        # a person has less to say to a robot that hangs, too
        also=("the task with a person after the rounds against before", gain("live-3", "live")),
    ),
    Rule(
        "a high level that knows everything does the task at least as often as the pair with a person (measured: the "
        "lead)",
        "a check of ours: what is left are failures of the low level",
        gain("oracle", "live"),
        0.0,
    ),
)
"""What has to hold (spec, section 5.1): the pass rules."""
BESIDE: tuple[Rule, ...] = (
    Rule(
        "with a person, a larger share of the eight stages is done (measured: the gain)",
        "25 to 50 points a stage on bags, 30 to 45 and 15 to 25 on the others (from notes)",
        gain("live", "base", "stages"),
        NO_LEAD,
    ),
    Rule(
        "after three rounds, a larger share of the stages is done without a person (measured: the gain)",
        "about 20 points on average (from notes)",
        gain("post-3", "base", "stages"),
        NO_LEAD,
    ),
    Rule(
        "words teach more than taking over does, at equal interventions: task (measured: the lead)",
        NOTES,
        gain("post-3", "motor"),
        NO_LEAD,
    ),
    Rule(
        "a pair is better than one policy without commands (measured: the lead)",
        NOTES,
        gain("base", "flat"),
        NO_LEAD,
    ),
    Rule(
        "the learned high level is better than a fixed order by the clock (measured: the lead)",
        NOTES,
        gain("base", "order"),
        NO_LEAD,
    ),
)
ABLATED: tuple[tuple[str, str, str], ...] = (
    ("unfiltered", "base", "without the mistake filter fewer stages are done"),
    ("onehot", "base", "with a row of weights for each command fewer stages are done"),
    ("history-0", "base", "with one frame in place of four fewer stages are done"),
    ("pre-roll-0", "post-1", "without what came before the words a round teaches less"),
    ("ratio-50", "post-1", "half of each step from the corrections teaches less than a tenth"),
    ("ratio-100", "post-1", "corrections alone teach less than a tenth of each step"),
    ("raw", "post-1", "the very words teach less than the commands they were taken for"),
    (
        "live-raw",
        "live",
        "following the very words helps less than following the commands they were taken for",
    ),
    ("live-10", "live", "a person who is wrong in 10% helps less"),
    ("live-30", "live", "a person who is wrong in 30% helps less"),
)
"""(arm, against, what is claimed): shares of stages, which tell more than the task in few episodes."""


def claims(done: Done, tier: Tier, seeds: Sequence[int]) -> list[Claim]:
    """Pass rules first, then what else the arms say."""
    ablated = [
        Rule(f"{text} (measured: by how much)", NOTES, gain(against, arm, "stages"), NO_LEAD)
        for arm, against, text in ABLATED
    ]
    return [_claim(rule, done, tier, seeds) for rule in (*RULES, *BESIDE, *ablated)]


def _claim(rule: Rule, done: Done, tier: Tier, seeds: Sequence[int]) -> Claim:
    if tier == "smoke":
        return Claim(rule.text, rule.paper, note=SMOKE)
    with np.errstate(divide="ignore", invalid="ignore"):
        single, interval = over_all(rule.value, done, SETUP, seeds)
    if not single:
        return Claim(rule.text, rule.paper, note=failures(done, seeds) or "not run yet")
    count = f"{len(single)} seed{'s' if len(single) > 1 else ''}"
    over = "seeds and episodes" if len(single) > 1 else "episodes alone, so of this one training"
    note = f"{count}, interval over {over}"
    # one seed tells nothing of others, however many episodes it has
    holds = settled(single, interval, rule.bound) if len(single) > 1 else None
    if rule.also:
        told, value = rule.also
        change = float(np.mean(over_all(value, done, SETUP, seeds)[0]))
        note += f"; {told}: {100 * change:+.0f} points"
        holds = False if len(single) > 1 and change < 0 else holds
    return Claim(rule.text, rule.paper, float(np.mean(single)), interval, holds, note)


def failures(done: Done, seeds: Sequence[int]) -> str:
    """Which arms went to pieces, and why."""
    return "; ".join(
        f"seed {seed}, {NAMES[arm]}: {result['failed']}"
        for (_, arm, seed), result in sorted(done.items())
        if seed in seeds and "failed" in result
    )

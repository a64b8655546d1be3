"""The claims of DROID, from the results of arms alone. A value is one number per seed; intervals are over seeds, and
one seed decides nothing. Out of distribution is the mean over distractors, new instances and moved cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heedful.papers.droid_arms import NEAR, motion, of_all, reached, stuck, success
from heedful.papers.results import Claim, Tier
from heedful.papers.seeds import Done, Get, Result, claim

Of = Callable[[str], Result]
"""An arm's result, of one seed."""
NOT_THERE = "no number in the paper"
AHEAD_IN = "+22 points over the next best, co-training on Open X (section 5; six tasks, 10 rollouts each)"
AHEAD_OUT = "+17 points over the next best, co-training on Open X (section 5)"
SCENES = "7362 trajectories of 20 scenes lose to 7362 of all scenes, out of distribution (section 5; read off a figure)"
OPENPI = "openpi leaves idle frames out of DROID so that policies do not stand still; no number"


def claims(done: Done, tier: Tier, seeds: Sequence[int]) -> list[Claim]:
    """All claims, those of co-training before those of sensitivity."""

    def say(text: str, paper: str, value: Callable[[Of], float]) -> Claim:
        def of_seed(get: Get) -> float:
            return value(lambda arm: get(*of_all(arm)))

        return claim(text, paper, of_seed, done, tier, seeds)

    def ahead(one: str, other: str, *, shown: bool) -> Callable[[Of], float]:
        return lambda of: success(of(one), shown=shown) - success(of(other), shown=shown)

    inside, outside = "where it was shown", "out of distribution"
    found = [
        say(
            f"co-training on many scenes succeeds more often {outside} than no co-training (measured: the lead)",
            NOT_THERE + "; the paper's figure has co-training ahead",
            ahead("diverse", "none", shown=False),
        ),
        say(
            f"co-training on many scenes succeeds more often {outside} than whole batches of demonstrations, which are "
            "twice the exposure to them (measured: the lead)",
            NOT_THERE,
            ahead("diverse", "none-2x", shown=False),
        ),
        say(
            f"co-training on many scenes succeeds more often {outside} than on as many episodes of three scenes "
            "(measured: the lead)",
            SCENES,
            ahead("diverse", "narrow", shown=False),
        ),
        say(
            f"co-training on many scenes succeeds more often {outside} than on as many episodes in another convention "
            "and before fixed cameras (measured: the lead)",
            AHEAD_OUT,
            ahead("diverse", "oxe", shown=False),
        ),
        say(
            f"it does so {inside} too: many scenes against another convention and fixed cameras (measured: the lead)",
            AHEAD_IN,
            ahead("diverse", "oxe", shown=True),
        ),
        say(
            f"co-training on many scenes succeeds more often {inside} than no co-training (measured: the lead)",
            NOT_THERE + "; the paper's figure has co-training ahead",
            ahead("diverse", "none", shown=True),
        ),
        say(
            f"co-training on twice as many scenes succeeds more often {outside} than on three scenes (measured: the "
            "lead)",
            "the full set is at least as good as the random subset (section 5; read off a figure)",
            ahead("full", "narrow", shown=False),
        ),
    ]
    for other, told in (
        ("none", "no co-training"),
        ("narrow", "three scenes"),
        ("oxe", "another convention"),
    ):
        found.append(
            say(
                f"co-training on many scenes comes within {100 * NEAR:g} cm of the object more often {outside} than "
                f"{told} (measured: the lead)",
                "not in the paper; a finer measure where few trials succeed",
                lambda of, other=other: reached(of("diverse"), shown=False) - reached(of(other), shown=False),
            )
        )
    for share in ("25", "75"):
        found.append(
            say(
                f"half a batch of co-training succeeds more often {outside} than {share}% of it (measured: the lead)",
                "the paper takes one half; " + NOT_THERE,
                ahead("diverse", f"mix-{share}", shown=False),
            )
        )
    found += [
        say(
            "leaving idle frames out, the arm moves sooner (measured: seconds)",
            OPENPI,
            lambda of: motion(of("diverse")) - motion(of("filtered")),
        ),
        say(
            "leaving idle frames out, the arm stands still for two seconds in fewer trials (measured: the difference)",
            OPENPI,
            lambda of: stuck(of("diverse")) - stuck(of("filtered")),
        ),
        say(
            "three instructions an episode succeed more often than one, all settings alike (measured: the lead)",
            "up to three were collected; " + NOT_THERE,
            lambda of: overall(of("diverse")) - overall(of("one-instruction")),
        ),
        say(
            "poses to go to succeed more often than changes of the pose, all settings alike (measured: the lead)",
            "the paper's policy predicts poses; " + NOT_THERE,
            lambda of: overall(of("diverse")) - overall(of("delta")),
        ),
    ]
    return found


def overall(result: Result) -> float:
    """Success where it was shown and out of distribution, the mean of the two."""
    return (success(result, shown=True) + success(result, shown=False)) / 2

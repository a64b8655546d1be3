"""Policy-Agnostic RL: any class of policy, improved by a critic (Mark et al. 2024, arXiv 2412.06685).

The paper's text was not at hand: what is said to be its figures is from its site, its code and its public reviews. It
has AntMaze, FrankaKitchen, CALVIN and robots, a million steps of a critic of ten members, and 1000 online episodes.
Here, on a CPU's budget:

1. Tasks and data are those that can be made here (`heedful act collect`): a bandit of four peaks, PointMaze UMaze with
   play data and Medium (twice the time, every third episode to the goal), and MetaWorld's drawer-open by its scripted
   policy. Its push and peg, OGBench's cube and the large maze are left out: their behaviours are there, their runs
   would take longer than all others together.
2. The noise of the mazes' and the drawer's data is the first at which a clone (of `heedful act`'s default size)
   succeeds in 30 to 50% of episodes with seeds of their own, or the nearest; it is fixed before any reinforcement
   learning. All seeds share one data set, so intervals are over training and episodes, not over data. Data "with no
   near-optimal actions" are made by a controller that is weak and turned aside; its noise may be right by accident.
3. Networks, searches and steps are small: two critics of 128 x 2 with squared errors, k = 8, m = 2, T = 3, 1500 steps
   of the critic (2000 on Medium), 60 online episodes; target networks follow at 0.05, ten times the paper's rate, or
   so few steps would not pass a value along a maze.
4. The policy is distilled once offline; the paper first does so online. Classes are diffusion, flow, Gaussian and
   tokens; a language model is not among them.
5. Settings are chosen on other tasks (the bandit turned, a small maze of our own) with a seed of its own: three for
   each method, by the diffusion policy, all other classes and the ablations taking the same. Drawer and Medium take
   the small maze's.
6. "Climbing alone" climbs from one sample and the data's action; the release climbs from the data's action alone.
7. Weighted cloning has PA-RL's critic and begins with the same clone; Cal-QL's Gaussian is squashed, as in SAC, and
   clones for itself. DQL, DPPO and RLPD are left out.
8. See `heedful act` for what its training does otherwise than the paper's code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.parl_arms import arms_of, data_of, run_arms, tried
from heedful.papers.parl_claims import claims
from heedful.papers.parl_page import data_table, plots, settings_table, tables
from heedful.papers.parl_sizes import NAMES, SETTINGS, SIZES
from heedful.papers.results import Part, Results, Tier, joined
from heedful.papers.seeds import Done, setup_by_setup

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "Policy-Agnostic RL: any class of policy, improved by a critic"
SEEDS = {"smoke": 1, "main": 5}
METHODS = {**NAMES, "calql": "Cal-QL"}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """Every setup, one after the other; see `heedful.papers.reproduce` for what is filled in afterwards."""
    sizes = {name: setup for name, setup in SIZES[tier].items() if name not in SETTINGS}
    parts = [
        setup_part(done, tier, name, own)
        for name, own, done in setup_by_setup(
            {name: seeds[: setup.seeds or None] for name, setup in sizes.items()},
            lambda name, seed, until: run_arms(tier, name, seed, run, until),
            lambda name, seed: (f"{kind}/{arm}" for kind, arm in arms_of(sizes[name])),
            until,
        )
    ]
    return joined("parl", TITLE, [*parts, shared(tier, run)])


def setup_part(done: Done, tier: Tier, name: str, seeds: Sequence[int]) -> Part:
    """Claims, tables and plots of a setup, and how much of it is done."""
    setup = SIZES[tier][name]
    arms = [f"{kind}/{arm}" for kind, arm in arms_of(setup)]
    count = sum((name, arm, seed) in done for arm in arms for seed in seeds)
    notes = [f"{setup.about}: {count} of {len(arms) * len(seeds)} arms are done."]
    notes += [
        f"{setup.about}, {arm}, seed {seed}: no result, {result['failed']}."
        for (_, arm, seed), result in sorted(done.items())
        if "failed" in result
    ]
    return Part(claims(done, tier, name, seeds), tables(done, name, setup), plots(done, name, setup), notes)


def shared(tier: Tier, run: Run) -> Part:
    """The data of all setups and the settings that were chosen, as far as they were made."""
    setups = SIZES[tier]
    data = {name: found for name in setups if (found := data_of(tier, name, run, -math.inf)) is not None}
    made = [data_table(setups, data)]
    for tuning in (name for name in SETTINGS if name in setups):
        scores = {method: tried(tier, tuning, method, run, -math.inf) for method in SETTINGS[tuning]}
        made.append(settings_table(f"Settings, chosen on {setups[tuning].about}", scores, METHODS))
    notes = [
        f"Data of {setups[name].about}: no noise gave a clone between 30% and 50%; the nearest was taken."
        for name, found in data.items()
        if "clone_success" in found and not 0.3 <= found["clone_success"] <= 0.5
    ]
    if tier == "main":
        notes.append(
            "All five seeds take about five hours of one core; `heedful.papers.parl_sizes` says what each arm trains."
        )
    return Part(tables=[table for table in made if table.rows], notes=notes)

"""DROID: what co-training on many scenes is worth (Khazatsky et al. 2024, arXiv 2403.12945, section 5).

The paper has six tasks on real robots, 76,000 demonstrations, and ResNet-50 at batch 128 for 25,000 steps. Here, on a
CPU's budget:

1. A simulated table with scripted demonstrations (`data.table_sets`): a held-out scene with three tasks of 40
   demonstrations each, another scene for each seed; 6 trials a task and setting, the same starts for all arms.
2. Data sets of 300 episodes (60 scenes x 5, 3 x 100), 600 for the full one; the paper has 564 scenes, and 7362 episodes
   in its comparison of few scenes with many. All seeds share them, so intervals are over held-out scenes, training and
   trials, not over the data that is co-trained on.
3. The policy is `heedful demos train` with four convolutions and 32 keypoints at 48 x 48, a U-Net of 32/64/128 that
   predicts the noise beyond the noisy chunk, MiniLM, less jitter, and 4,000 steps of 64 samples (the paper: 25,000 of
   128) at a higher learning rate (1e-3). All but the batch were chosen among eight, by the error on the demonstrations
   of seed 0 (a tenth of them left out for the last three), which is also reported; 24 or 36 trials of some were seen
   then. Batches were 16 there. They became 64 before any arm was trained, as in longer trainings on those
   demonstrations a policy began to follow the pictures only after some 200,000 samples. Few claims may be decided by
   success all the same, so some are about coming near the object.
4. All arms have as many optimiser steps. Without co-training a batch is halved, which is the same exposure to the
   demonstrations as in the co-training arms, and whole in `none-2x`.
5. Open X stands as other scenes before two fixed cameras whose `action` is a change of pose and whose gripper is 1 when
   open; it is read as it stands. How the paper's code read Open X could not be seen. So the arm says what another
   convention and fixed cameras cost together.
6. The drawer stands in one place of a scene, so that it can be opened without looking; the other tasks cannot be done
   so. Whether a policy looks is measured beside success (`papers.droid_sees`), a diagnosis that was added when a third
   of the arms was there.
7. The idle filter is openpi's, later than the paper. The paper draws one of up to three instructions; that, the share
   of co-training and poses against changes are settings whose worth it does not measure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.droid_arms import DEMONSTRATIONS, data_of, run_arms
from heedful.papers.droid_claims import claims
from heedful.papers.droid_page import data_table, plots, tables
from heedful.papers.droid_sizes import ARMS
from heedful.papers.results import Part, Results, Tier, joined
from heedful.papers.seeds import Done, setup_by_setup

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "DROID: co-training on demonstrations from many scenes"
SEEDS = {"smoke": 1, "main": 3}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """Co-training, then what it is sensitive to; see `heedful.papers.reproduce` for what is filled in afterwards."""
    done: Done = {}
    for _, _, found in setup_by_setup(
        dict.fromkeys(ARMS, seeds),
        lambda setup, seed, until: run_arms(tier, setup, seed, run, until),
        lambda setup, seed: ARMS[setup],
        until,
    ):
        done |= found
    return joined("droid", TITLE, [part(done, tier, seeds), data_part(tier, seeds, run)])


def part(done: Done, tier: Tier, seeds: Sequence[int]) -> Part:
    """Claims, tables and plots of all arms, and how many of them are done."""
    notes = []
    for setup, arms in ARMS.items():
        count = sum((setup, arm, seed) in done for arm in arms for seed in seeds)
        notes.append(f"{setup}: {count} of {len(arms) * len(seeds)} arms are done.")
    notes += [
        f"{arm}, seed {seed}: no result, {result['failed']}."
        for (_, arm, seed), result in sorted(done.items())
        if "failed" in result
    ]
    return Part(claims(done, tier, seeds), tables(done, seeds), plots(done), notes)


def data_part(tier: Tier, seeds: Sequence[int], run: Run) -> Part:
    """The data sets, as far as they were made."""
    names = list(dict.fromkeys(arm.mix for arms in ARMS.values() for arm in arms.values() if arm.mix))
    wanted = {name: (name, 0) for name in names}
    wanted |= {f"demonstrations, seed {seed}": (DEMONSTRATIONS, seed) for seed in seeds}
    data = {
        told: found
        for told, (name, seed) in wanted.items()
        if (found := data_of(tier, name, seed, run, -math.inf)) is not None
    }
    return Part(tables=[data_table(data)] if data else [])
